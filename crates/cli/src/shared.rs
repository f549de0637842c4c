//! `NAME=PATH`: a folder that machines of the farm share, each by its own path.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    str::FromStr,
};

use crate::exit::{Fault, Outcome};

/// One such folder, as it stands on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    name: String,
    root: PathBuf,
}

impl FromStr for Shared {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, root) = text.split_once('=').unwrap_or_default();
        let plain = |c: char| c.is_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.chars().count() > 64 || !name.chars().all(plain) || root.is_empty() {
            return Err(
                "write NAME=PATH, such as studio=/mnt/studio; a name has letters, digits, -, _ and .".into(),
            );
        }
        let root = std::path::absolute(Path::new(root)).map_err(|error| error.to_string())?;
        Ok(Self { name: name.to_owned(), root })
    }
}

/// Nothing where there are none, so that another place may name some.
pub fn by_name(all: Vec<Shared>) -> Option<BTreeMap<String, PathBuf>> {
    (!all.is_empty()).then(|| all.into_iter().map(|shared| (shared.name, shared.root)).collect())
}

/// Those of `KILN_SHARED`.
pub fn listed(text: Option<String>) -> Outcome<Option<BTreeMap<String, PathBuf>>> {
    let Some(text) = text else { return Ok(None) };
    let all = text.split(';').filter(|one| !one.trim().is_empty()).map(|one| one.trim().parse::<Shared>());
    let all = all.collect::<Result<Vec<_>, _>>().map_err(|why| {
        Fault::bad_input(format!("the variable KILN_SHARED cannot be “{text}” ({why}); correct or unset it"))
    })?;
    Ok(by_name(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_have_names() {
        let shared: Shared = "studio=/mnt/a=b".parse().unwrap();
        assert_eq!(shared, Shared { name: "studio".to_owned(), root: "/mnt/a=b".into() });
        for bad in ["", "studio", "=/mnt", "studio=", "a b=/mnt", "a;b=/mnt", "a/b=/mnt"] {
            assert!(bad.parse::<Shared>().is_err(), "{bad}");
        }
        let both = listed(Some("a=/x; b=/y;".to_owned())).unwrap().unwrap();
        assert_eq!(both.len(), 2);
        assert_eq!(listed(Some(" ".to_owned())).unwrap(), None);
    }
}
