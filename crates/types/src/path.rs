//! A path that cannot leave the folder that it is joined to.

use std::{fmt, path::PathBuf, str::FromStr};

use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};

use crate::pattern::CONTROL;

/// A relative path with `/` between its parts, safe to join below any folder: no root, no `.` or `..`, no
/// empty part, no NUL, control character, backslash or drive letter; at most 1,024 bytes, each part at most
/// 255.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelPath(String);
crate::ids::text_serde!(RelPath);

impl utoipa::PartialSchema for RelPath {
    fn schema() -> RefOr<Schema> {
        let class = |but: &str| format!("[^{but}/\\\\{CONTROL}]");
        // A pattern counts characters: text that is not ASCII may reach the limit in bytes before these.
        let more = |least: usize, most: usize| format!("{}{{{least},{most}}}", class(""));
        let most = Self::MAX_PART;
        // A part of dots alone is one of three or more.
        let dots = format!("\\.{}{}|\\.\\.{}", class("."), more(0, most - 2), more(1, most - 2));
        let part = format!("({}{}|{dots})", class("."), more(0, most - 1));
        // The first part has no drive letter.
        let letter = format!("[A-Za-z]({}{})?", class(":"), more(0, most - 2));
        let first = format!("({letter}|{}{}|{dots})", class("A-Za-z."), more(0, most - 1));
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(
                "A relative path with `/` between its parts: no part `.` or `..`, no control character, backslash or \
                 drive letter; at most 1,024 bytes, each part at most 255.",
            ))
            .min_length(Some(1))
            .max_length(Some(Self::MAX))
            .pattern(Some(format!("^{first}(/{part})*$")))
            .examples(["frames/0001.png"])
            .into()
    }
}

impl utoipa::ToSchema for RelPath {}

/// The reason why a text is not a [`RelPath`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("“{}” is not a safe relative path: {why}", shown(.text))]
pub struct BadPath {
    text: String,
    why: &'static str,
}

fn shown(text: &str) -> String {
    text.chars().take(120).flat_map(char::escape_default).collect()
}

impl RelPath {
    /// The most bytes of a path.
    const MAX: usize = 1024;
    /// The most bytes of a part.
    const MAX_PART: usize = 255;

    pub fn new(text: &str) -> Result<Self, BadPath> {
        let bad = |why| Err(BadPath { text: text.to_owned(), why });
        if text.is_empty() {
            return bad("it is empty");
        }
        if text.len() > Self::MAX {
            return bad("it is longer than 1,024 bytes");
        }
        if text.starts_with('/') {
            return bad("it is absolute");
        }
        if text.contains('\\') {
            return bad("it holds a backslash");
        }
        if text.chars().any(char::is_control) {
            return bad("it holds a control character");
        }
        for part in text.split('/') {
            match part {
                "" => return bad("it has an empty part"),
                "." | ".." => return bad("it has a part of dots"),
                _ if part.len() > Self::MAX_PART => return bad("a part is longer than 255 bytes"),
                _ => {}
            }
        }
        if text.as_bytes().get(1) == Some(&b':') && text.as_bytes()[0].is_ascii_alphabetic() {
            return bad("it begins with a drive letter");
        }
        Ok(Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// All parts before the last, if any.
    pub fn parent(&self) -> Option<Self> {
        self.0.rsplit_once('/').map(|(parent, _)| Self(parent.to_owned()))
    }

    pub fn to_path(&self) -> PathBuf {
        self.0.split('/').collect()
    }
}

impl AsRef<str> for RelPath {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RelPath {
    type Err = BadPath;
    fn from_str(s: &str) -> Result<Self, BadPath> {
        Self::new(s)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_what_could_escape() {
        for bad in ["", "/etc/passwd", "../a", "a/../b", "a//b", "a/", "./a", "a\0b", "C:/x", "a\\b", "a\nb"]
        {
            assert!(RelPath::new(bad).is_err(), "{bad:?}");
        }
        assert!(RelPath::new(&"a".repeat(256)).is_err());
        for good in ["a", "a/b.png", "..a", "a..", "frames/-0005.png", "日本/雪.exr", ".hidden"] {
            assert_eq!(RelPath::new(good).unwrap().as_str(), good);
        }
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_stays_below(text in "[./a\\\\:é-]{0,12}") {
            if let Ok(path) = RelPath::new(&text) {
                use std::path::Component;
                prop_assert!(path.to_path().components().all(|c| matches!(c, Component::Normal(_))));
            }
        }
    }
}
