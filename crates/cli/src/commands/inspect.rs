//! `kiln inspect`.

use std::path::Path;

use kiln_blend::{Dependencies, Dependency, MissingDependency, OwnScope};
use serde_json::{Value, json};

use super::Context;
use crate::{
    exit::{CommandError, Exit, Outcome},
    output::{blend::describe, text::shown},
};

pub fn run(context: &Context, file: &Path) -> Outcome<Exit> {
    let found =
        kiln_blend::find_dependencies(file).map_err(|error| CommandError::bad_input(error.to_string()))?;
    let size = found.blend.metadata().map_or(0, |meta| meta.len());
    context.output.result(&as_json(&found, size), || describe(&found, size));
    Ok(Exit::Done)
}

/// Returns the JSON that `docs/inspect.md` promises.
fn as_json(found: &Dependencies, size: u64) -> Value {
    let own = found.inspection.own_scope();
    let lacking = found.find_missing(own.as_ref().map(OwnScope::scope));
    let missing: Vec<Value> = lacking.missing.iter().map(missing).collect();
    let unused: Vec<Value> = lacking.unused.iter().map(|one| self::missing(&one.file)).collect();
    let broken: Vec<String> = found.broken.iter().map(ToString::to_string).collect();
    json!({
        "file": shown(Some(&found.blend)),
        "bytes": size,
        "blend": found.inspection,
        "files": found.items.iter().map(file).collect::<Vec<_>>(),
        "missing": missing,
        "unused": unused,
        "broken": broken,
    })
}

fn missing(one: &MissingDependency) -> Value {
    json!({ "kind": one.kind, "path": one.path, "looked_for": shown(Some(&one.place)), "absent": one.absent })
}

fn file(item: &Dependency) -> Value {
    json!({
        "kind": item.file.kind,
        "path": item.file.path,
        "owner": item.file.owner,
        "holder": shown(Some(&item.holder)),
        "packed": item.file.packed,
        "exists": item.exists(),
        "required": item.file.kind.is_required(),
        "place": shown(Some(&item.place)),
        "count": item.files.len(),
    })
}
