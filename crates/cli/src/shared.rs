//! `NAME=PATH`: a folder that machines of the farm share, each by its own path.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

/// One such folder, as it stands on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    pub name: String,
    pub root: PathBuf,
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.root.display())
    }
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
        assert_eq!(shared.to_string(), "studio=/mnt/a=b");
    }
}
