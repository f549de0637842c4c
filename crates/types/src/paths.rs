//! Paths in JSON. JSON holds Unicode only, and serde fails on a path that is not Unicode.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Serialises a path for people and programs; replaces bytes that are not Unicode. For `serialize_with`.
pub fn shown<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&path.display())
}

/// The same for an optional path.
pub fn shown_if_any<S: Serializer>(path: &Option<PathBuf>, to: S) -> Result<S::Ok, S::Error> {
    match path {
        Some(path) => shown(path, to),
        None => to.serialize_none(),
    }
}

/// Returns a path or name as a text for JSON, a different one for each: a byte that is not Unicode is written as NUL,
/// which no path contains, and two hexadecimal digits. Kiln's host reads it (`unspelled` of
/// `blender/kiln_host/channel.py`).
pub fn spelled(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("\0{byte:02x}"));
        }
    }
    text
}

/// Returns the bytes of a text that [`spelled`] wrote; `None` for another text.
pub fn unspelled(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('\0');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend(&part.as_bytes()[2..]);
    }
    (spelled(&bytes) == text).then_some(bytes)
}

/// Serialises a path that Kiln reads again byte for byte: a text, or bytes if it is not Unicode. For `with`.
pub mod exact {
    use utoipa::openapi::RefOr;
    use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema, Type};

    use super::*;

    /// The schema of a stored path.
    pub(crate) fn schema() -> RefOr<Schema> {
        let byte = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(255));
        OneOfBuilder::new()
            .description(Some("The path of the .blend: a text, or its bytes where it is no Unicode."))
            .item(ObjectBuilder::new().schema_type(Type::String))
            .item(ArrayBuilder::new().items(byte))
            .into()
    }

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Stored {
        Text(String),
        Bytes(Vec<u8>),
    }

    pub fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        let stored = match path.to_str() {
            Some(text) => Stored::Text(text.to_owned()),
            None => Stored::Bytes(path.as_os_str().as_encoded_bytes().to_vec()),
        };
        stored.serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
        match Stored::deserialize(from)? {
            Stored::Text(text) => Ok(text.into()),
            Stored::Bytes(bytes) => of_bytes(bytes),
        }
    }

    #[cfg(unix)]
    fn of_bytes<E>(bytes: Vec<u8>) -> Result<PathBuf, E> {
        use std::{ffi::OsString, os::unix::ffi::OsStringExt as _};
        Ok(OsString::from_vec(bytes).into())
    }

    #[cfg(not(unix))]
    fn of_bytes<E: serde::de::Error>(bytes: Vec<u8>) -> Result<PathBuf, E> {
        String::from_utf8(bytes).map(Into::into).map_err(E::custom)
    }
}

/// The same for an optional path. For `with`.
pub mod exact_if_any {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Stored(#[serde(with = "exact")] PathBuf);

    pub fn serialize<S: Serializer>(path: &Option<PathBuf>, to: S) -> Result<S::Ok, S::Error> {
        path.clone().map(Stored).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
        Ok(Option::<Stored>::deserialize(from)?.map(|stored| stored.0))
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Exact {
        #[serde(with = "exact")]
        path: PathBuf,
    }

    #[derive(Serialize)]
    struct Shown {
        #[serde(serialize_with = "shown")]
        path: PathBuf,
        #[serde(serialize_with = "shown_if_any")]
        other: Option<PathBuf>,
    }

    #[test]
    fn every_path_is_spelled_in_one_way_of_its_own() {
        for (path, text) in [
            (&b"/shots/shot"[..], "/shots/shot"),
            (b"/f\xe9\xe8lm", "/f\0e9\0e8lm"),
            (b"a\nb", "a\nb"),
            (b"caf\xc3\xa9", "caf\u{e9}"),
        ] {
            assert_eq!(spelled(path), text);
            assert_eq!(unspelled(text).as_deref(), Some(path));
        }
        for text in ["a\0", "a\0e", "a\0zz", "a\0\u{e9}", "a\x0061", "a\0E9"] {
            assert_eq!(unspelled(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_path_that_is_no_unicode_comes_back_byte_for_byte_and_is_shown_as_far_as_it_can_be() {
        let odd = PathBuf::from(OsStr::from_bytes(b"/shots/f\xe9lm"));
        for path in [PathBuf::from("/shots/shot"), odd.clone()] {
            let exact = Exact { path };
            let text = serde_json::to_string(&exact).unwrap();
            assert_eq!(serde_json::from_str::<Exact>(&text).unwrap(), exact, "{text}");
        }
        let lossy = serde_json::json!(Shown { path: odd.clone(), other: Some(odd) });
        assert_eq!(lossy, serde_json::json!({ "path": "/shots/f\u{fffd}lm", "other": "/shots/f\u{fffd}lm" }));
    }
}
