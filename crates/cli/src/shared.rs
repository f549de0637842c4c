//! `NAME=PATH`: a folder that machines of the farm share, each by its own path.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use kiln_types::{BadName, ShortName};

/// A shared folder, as the command line names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedFolder {
    pub name: ShortName,
    pub root: PathBuf,
}

impl fmt::Display for SharedFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.root.display())
    }
}

impl FromStr for SharedFolder {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, root) = text.split_once('=').unwrap_or_default();
        if name.is_empty() || root.is_empty() {
            return Err("write NAME=PATH, such as studio=/mnt/studio".into());
        }
        let name = name.parse().map_err(|error: BadName| error.to_string())?;
        let root = std::path::absolute(Path::new(root)).map_err(|error| error.to_string())?;
        Ok(Self { name, root })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_have_names() {
        let shared: SharedFolder = "studio=/mnt/a=b".parse().unwrap();
        assert_eq!(shared, SharedFolder { name: "studio".parse().unwrap(), root: "/mnt/a=b".into() });
        for bad in ["", "studio", "=/mnt", "studio=", " =/mnt", "a,b=/mnt", "a\nb=/mnt"] {
            assert!(bad.parse::<SharedFolder>().is_err(), "{bad}");
        }
        assert_eq!(shared.to_string(), "studio=/mnt/a=b");
    }
}
