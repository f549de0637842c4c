//! The farm key: created once, in a file that only its owner can read.

use std::{
    fs,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use kiln_files::{Access, Durability, write_atomically};
use rand::{TryRng, rngs::SysRng};

/// A bearer key, which `Debug` does not print.
#[derive(Clone)]
pub(crate) struct FarmKey {
    text: String,
    hash: blake3::Hash,
}

impl FarmKey {
    const PREFIX: &'static str = "kiln_";
    /// 256 random bits, in hexadecimal.
    const DIGITS: usize = 64;

    /// Reads `<data>/farm.key`, or creates it with mode 0600 if it does not exist.
    pub(crate) fn load_or_create(data: &Path) -> Result<Self, KeyError> {
        let path = Self::path(data);
        let read = |error| KeyError::Io { path: path.clone(), error };
        match fs::File::open(&path) {
            Ok(file) => {
                let mut text = String::new();
                file.take(4096).read_to_string(&mut text).map_err(read)?;
                // A copy that was restored may have looser permissions.
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(read)?;
                Self::parse(text.trim()).ok_or(KeyError::Malformed { path })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = Self::random().map_err(read)?;
                // Whole or absent: a server killed here must not leave half a key.
                let line = format!("{}\n", key.text);
                write_atomically(&path, line.as_bytes(), Access::Owner, Durability::Durable).map_err(read)?;
                Ok(key)
            }
            Err(error) => Err(read(error)),
        }
    }

    pub(crate) fn path(data: &Path) -> PathBuf {
        data.join("farm.key")
    }

    fn random() -> io::Result<Self> {
        let mut bytes = [0u8; 32];
        SysRng.try_fill_bytes(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
        let digits = blake3::Hash::from_bytes(bytes).to_hex();
        Ok(Self::of(format!("{}{}", Self::PREFIX, digits)))
    }

    fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(Self::PREFIX)?;
        let whole = digits.len() == Self::DIGITS && digits.bytes().all(|b| b.is_ascii_hexdigit());
        whole.then(|| Self::of(text.to_owned()))
    }

    fn of(text: String) -> Self {
        let hash = blake3::hash(text.as_bytes());
        Self { text, hash }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Compares hashes, which `blake3` does in constant time: the duration reveals nothing of the key.
    pub(crate) fn matches(&self, offered: &[u8]) -> bool {
        self.hash == blake3::hash(offered)
    }
}

impl std::fmt::Debug for FarmKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FarmKey(..)")
    }
}

/// The reasons for which the farm key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("The farm key {path} cannot be read or written: {error}.", path = path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error(
        "The file {path} does not hold a farm key; move it away and a new key is made at the next start.",
        path = path.display()
    )]
    Malformed { path: PathBuf },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_only_its_owner_reads_it() {
        let data = tempfile::tempdir().unwrap();
        let first = FarmKey::load_or_create(data.path()).unwrap();
        let again = FarmKey::load_or_create(data.path()).unwrap();
        assert_eq!(first.as_str(), again.as_str());
        assert_eq!(first.as_str().len(), 5 + 64);
        let mode = fs::metadata(FarmKey::path(data.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(first.matches(again.as_str().as_bytes()));
        assert!(!first.matches(b"kiln_"));
        assert!(!format!("{first:?}").contains(first.as_str()));
    }

    #[test]
    fn a_damaged_key_is_named() {
        let data = tempfile::tempdir().unwrap();
        fs::write(FarmKey::path(data.path()), "kiln_abc").unwrap();
        let error = FarmKey::load_or_create(data.path()).unwrap_err();
        assert!(error.to_string().contains("does not hold a farm key"), "{error}");
    }
}
