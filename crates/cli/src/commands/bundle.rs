//! `kiln bundle`.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use indicatif::ProgressBar;
use kiln_blend::{Dependencies, OwnScope, find_dependencies, plan_layout};
use kiln_client::FoundExtras;
use serde_json::json;

use super::{Context, submit::extras};
use crate::{
    args::BundleArgs,
    bundle::{BundleError, BundleSummary, Plan, Target},
    exit::{CommandError, Exit, Outcome},
    output::{
        Output,
        blend::print_missing,
        one_line,
        text::{count, shown},
    },
    progress::bytes_bar,
    signals::Signals,
    size::ByteSize,
};

impl From<BundleError> for CommandError {
    fn from(error: BundleError) -> Self {
        match &error {
            BundleError::Stopped => Self { exit: Exit::Interrupted, message: error.to_string() },
            BundleError::Write { .. } | BundleError::Changed(_) => Self::failed(error.to_string()),
            _ => Self::bad_input(error.to_string()),
        }
    }
}

pub async fn run(context: &Context, args: BundleArgs) -> Outcome<Exit> {
    let output = context.output;
    let mut signals = Signals::new().map_err(|error| CommandError::failed(error.to_string()))?;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let mut work = tokio::task::spawn_blocking(move || bundle(output, &args, &stopped));
    let ended = tokio::select! {
        ended = &mut work => ended,
        () = signals.next() => {
            stop.store(true, Ordering::Relaxed);
            work.await
        }
    };
    ended.map_err(|error| CommandError::failed(format!("the bundle broke off ({error})")))?
}

fn bundle(output: Output, args: &BundleArgs, stopped: &AtomicBool) -> Outcome<Exit> {
    let target = Target::at(&args.out);
    let found = find_dependencies(&args.file).map_err(|error| CommandError::bad_input(error.to_string()))?;
    let extras =
        extras(output, &args.extras).find().map_err(|error| CommandError::bad_input(error.to_string()))?;
    let own = found.inspection.own_scope();
    let mut layout = plan_layout(&found, &[], own.as_ref().map(OwnScope::scope).as_slice());
    extras.join(&mut layout.files).map_err(|error| CommandError::bad_input(error.to_string()))?;
    let plan = Plan::new(&found, layout)?;
    for notice in &plan.layout.notices {
        output.note(notice);
    }
    for broken in &found.broken {
        output.warning(&format!("{broken}; it is copied as it is"));
    }
    let missing = &plan.layout.missing;
    let named: Vec<String> = missing.iter().map(ToString::to_string).collect();
    let named: Vec<(&Path, &str)> =
        missing.iter().zip(&named).map(|(one, file)| (&*one.holder, file.as_str())).collect();
    print_missing(output, &named);
    for table in &extras.missing_tables {
        output.note(&format!("missing: table {} of the colour configuration", one_line(table)));
    }
    let lacking = missing.len() + extras.missing_tables.len();
    if lacking > 0 && !args.allow_missing {
        let (what, them) = if lacking == 1 {
            ("a file is".to_owned(), "it")
        } else {
            (format!("{lacking} files are"), "them")
        };
        return Err(CommandError::bad_input(format!(
            "{what} missing; bring {them} back, or continue without {them} with --allow-missing"
        )));
    }
    if args.dry_run {
        target.check(args.force)?;
        print_bundle(output, &found, &plan, None);
        return Ok(Exit::Done);
    }
    let bar = bytes_bar(output, plan.size());
    let step = |bytes: u64| {
        if let Some(bar) = &bar {
            bar.inc(bytes);
            bar.set_message(format!("{} of {}", ByteSize(bar.position()), ByteSize(plan.size())));
        }
        !stopped.load(Ordering::Relaxed)
    };
    let made = plan.write(&target, args.force, &manifest(&plan, &extras), step);
    bar.iter().for_each(ProgressBar::finish_and_clear);
    print_bundle(output, &found, &plan, Some((&target, &made?)));
    Ok(Exit::Done)
}

/// Returns the text that explains to a person how to open the bundle.
fn manifest(plan: &Plan, extras: &FoundExtras) -> Vec<u8> {
    let missing: Vec<&str> = plan.layout.missing.iter().map(|one| one.path.as_str()).collect();
    let value = json!({
        "made_by": format!("kiln {}", env!("CARGO_PKG_VERSION")), "blend": plan.layout.blend, "missing": missing,
        "ocio": extras.ocio, "addons": extras.addons,
    });
    format!("{value:#}\n").into_bytes()
}

fn print_bundle(output: Output, found: &Dependencies, plan: &Plan, made: Option<(&Target, &BundleSummary)>) {
    let layout = &plan.layout;
    let bytes = made.map_or_else(|| plan.size(), |(_, made)| made.bytes);
    let place: Option<PathBuf> = made.map(|(target, _)| target.path().to_owned());
    let broken: Vec<String> = found.broken.iter().map(ToString::to_string).collect();
    let value = json!({
        "out": shown(place.as_deref()), "blend": layout.blend, "bytes": bytes, "files": plan.files,
        "renamed": made.map(|(_, made)| &made.rewritten), "missing": layout.missing, "notices": layout.notices,
        "broken": broken,
    });
    output.result(&value, || match made {
        None => {
            let lines = plan.files.iter().map(|file| {
                let (path, size) = (one_line(file.path.as_str()), ByteSize(file.size).to_string());
                format!("{size:>10}  {path}\n")
            });
            let total = format!("{}, {}", count(plan.files.len() as u64, "file"), ByteSize(bytes));
            format!("{}{total}", lines.collect::<String>())
        }
        Some((target, made)) => {
            let names: usize = made.rewritten.iter().map(|copy| copy.renamed.len()).sum();
            let renamed = match names {
                0 => String::new(),
                names => format!(", {} remapped", count(names as u64, "name")),
            };
            let (files, bytes) = (count(plan.files.len() as u64, "file"), ByteSize(bytes));
            let open = match target {
                Target::Folder(folder) => folder.join(layout.blend.to_path()).display().to_string(),
                Target::Zip(_) => format!("{} in it", layout.blend),
            };
            one_line(&format!("{}: {files}, {bytes}{renamed}. Open {open}.", target.path().display()))
        }
    });
}
