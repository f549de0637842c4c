//! Names that people choose, and the rules for them.

use std::{borrow::Borrow, fmt, ops::Deref, str::FromStr};

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

use crate::{
    ids::text_serde,
    pattern::{CONTROL, SPACE},
};

/// The rule that a name breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("“{text}” cannot be a name: {rule}")]
pub struct BadName {
    text: String,
    rule: NameRule,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum NameRule {
    #[error("it is empty")]
    Empty,
    #[error("it is longer than {0} characters")]
    Length(usize),
    #[error("control characters are not allowed")]
    Control,
    #[error("commas and equals signs are not allowed")]
    Separator,
}

/// Returns the name without the white space at its ends, if it keeps the rules.
fn validate(text: &str, most: usize, is_separator: fn(char) -> bool) -> Result<String, BadName> {
    let rule = if text.chars().count() > most {
        NameRule::Length(most)
    } else if text.contains(char::is_control) {
        NameRule::Control
    } else if text.contains(is_separator) {
        NameRule::Separator
    } else if text.trim().is_empty() {
        NameRule::Empty
    } else {
        return Ok(text.trim().to_owned());
    };
    Err(BadName { text: text.chars().take(60).collect::<String>().escape_debug().to_string(), rule })
}

fn schema(most: usize, pattern: String, description: &str) -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(most))
        .pattern(Some(pattern))
        .description(Some(description))
        .into()
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $most:literal, $is_separator:expr, $excluded:literal, $description:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);
        text_serde!($name);

        impl $name {
            /// The most characters of a name.
            pub const MAX: usize = $most;

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadName;

            fn from_str(text: &str) -> Result<Self, BadName> {
                validate(text, Self::MAX, $is_separator).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, text: &&str) -> bool {
                self.0 == *text
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let any = format!("[^{CONTROL}{}]*", $excluded);
                let visible = format!("[^{CONTROL}{SPACE}{}]", $excluded);
                schema(Self::MAX, format!("^{any}{visible}{any}$"), $description)
            }
        }

        impl ToSchema for $name {}
    };
}

name!(
    /// The name of a worker, a job, a user or a project. White space at its ends is dropped.
    Name, 200, |_| false, "", "A name: not blank, and no control character. White space at its ends is dropped."
);
name!(
    /// The name of a tag, a pool, a limit or a shared folder: it can be part of a list on the command line.
    ShortName, 120, |c| matches!(c, ',' | '='), ",=",
    "A short name: not blank, no comma, no equals sign, and no control character. White space at its ends is dropped."
);

impl Name {
    /// Makes a name of a literal; only debug builds check it.
    pub fn from_static(text: &'static str) -> Self {
        debug_assert!(text.parse::<Self>().is_ok(), "{text}");
        Self(text.to_owned())
    }

    /// Returns the nearest name for any text, such as the name of a file or a machine; `None` for a blank text.
    pub fn nearest(text: &str) -> Option<Self> {
        let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let short: String = plain.trim_start().chars().take(Self::MAX).collect();
        short.parse().ok()
    }
}

/// The schema of the name of something inside a .blend.
pub struct BlenderName;

impl BlenderName {
    /// Bytes. Blender cuts names of data at 63 bytes (MAX_ID_NAME), and those of views at more.
    pub const MAX: usize = 255;

    pub fn is_valid(text: &str) -> bool {
        !text.is_empty() && text.len() <= Self::MAX && !text.chars().any(char::is_control)
    }
}

impl PartialSchema for BlenderName {
    fn schema() -> RefOr<Schema> {
        schema(
            Self::MAX,
            format!("^[^{CONTROL}]+$"),
            "The name of something inside a .blend: at most 255 bytes, and no control character.",
        )
    }
}

impl ToSchema for BlenderName {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_refused_with_the_reason() {
        let long = "é".repeat(Name::MAX);
        assert!(long.parse::<Name>().is_ok());
        for (text, why) in [
            ("", "empty"),
            (" \u{2003}", "empty"),
            ("a\nb", "control"),
            ("\u{1b}[31mred", "control"),
            ("a\u{9b}b", "control"),
            ("a\0b", "control"),
            (&*format!("{long}x"), "200 characters"),
        ] {
            for error in [text.parse::<Name>().unwrap_err(), text.parse::<ShortName>().unwrap_err()] {
                let is_told = error.to_string().contains(why) || error.to_string().contains("120 characters");
                assert!(is_told && !error.to_string().contains(char::is_control), "{text:?}: {error}");
            }
            assert!(serde_json::from_value::<Name>(text.into()).is_err(), "{text:?}");
        }
        for text in ["a,b", "a=b", ",", "="] {
            assert!(text.parse::<Name>().is_ok(), "{text}");
            assert!(text.parse::<ShortName>().unwrap_err().to_string().contains("commas"), "{text}");
        }
        assert_eq!(" shot & more\u{a0}".parse::<Name>().unwrap().as_str(), "shot & more");
        assert_eq!(serde_json::from_str::<ShortName>("\" big gpu \"").unwrap().as_str(), "big gpu");
    }

    #[test]
    fn any_text_that_is_not_blank_has_a_nearest_name() {
        let nearest = |text: &str| Name::nearest(text).map(String::from);
        assert_eq!(nearest(" shot\n01.v2 ").as_deref(), Some("shot 01.v2"));
        assert_eq!(nearest(&"x".repeat(300)).unwrap().len(), Name::MAX);
        assert_eq!(nearest("\n\t"), None);
    }
}
