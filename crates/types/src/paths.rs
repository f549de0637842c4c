//! Paths in JSON, which holds Unicode only: a path of this machine may be something else, and serde then fails.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// For people and programs to read: what is no Unicode is replaced. For `serialize_with`.
pub fn shown<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&path.display())
}

/// The same of a path that may not be there.
pub fn shown_if_any<S: Serializer>(path: &Option<PathBuf>, to: S) -> Result<S::Ok, S::Error> {
    match path {
        Some(path) => shown(path, to),
        None => to.serialize_none(),
    }
}

/// Returns a path or name as a text that JSON holds, a different one for each: a byte that is no Unicode is written as
/// NUL, which no path holds, and two hexadecimal digits. Kiln's host reads it (`unspelled` of
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

/// Returns the bytes that [`spelled`] has written; `None` where it has not.
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

/// For Kiln itself to read again, byte for byte: a text, or bytes where it is none. For `with`.
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

/// The same of a path that may not be there. For `with`.
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
    struct Kept {
        #[serde(with = "exact")]
        path: PathBuf,
    }

    #[derive(Serialize)]
    struct Told {
        #[serde(serialize_with = "shown")]
        path: PathBuf,
        #[serde(serialize_with = "shown_if_any")]
        other: Option<PathBuf>,
    }

    #[test]
    fn every_path_is_spelled_in_one_way_of_its_own() {
        for (path, text) in [
            (&b"/film/shot"[..], "/film/shot"),
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
        let odd = PathBuf::from(OsStr::from_bytes(b"/film/f\xe9lm"));
        for path in [PathBuf::from("/film/shot"), odd.clone()] {
            let kept = Kept { path };
            let text = serde_json::to_string(&kept).unwrap();
            assert_eq!(serde_json::from_str::<Kept>(&text).unwrap(), kept, "{text}");
        }
        let told = serde_json::json!(Told { path: odd.clone(), other: Some(odd) });
        assert_eq!(told, serde_json::json!({ "path": "/film/f\u{fffd}lm", "other": "/film/f\u{fffd}lm" }));
    }
}
