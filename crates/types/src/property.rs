//! Properties of a scene that a person sets by their path and a literal value (decision 028).

use std::{borrow::Borrow, collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{AdditionalProperties, ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema, Type},
    },
};

use crate::{ids::text_id, pattern::CONTROL, reserved};

/// The path of a property from the scene that renders: `cycles.max_bounces`, or `gravity[2]` for a member of an array.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PropertyPath(String);

const NAME: &str = "[A-Za-z_][A-Za-z0-9_]{0,62}";

text_id!(PropertyPath, format!(r"{NAME}(\.{NAME}){{0,7}}(\[(0|[1-9][0-9]?)\])?"), "cycles.max_bounces");

impl PropertyPath {
    /// The most names of a path.
    const MAX_NAMES: usize = 8;
    /// The most characters of each name.
    const MAX_NAME: usize = 63;

    /// The path without an index.
    pub fn name(&self) -> &str {
        self.0.split('[').next().unwrap_or_default()
    }
}

impl Borrow<str> for PropertyPath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PropertyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for PropertyPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (names, index) = match text.strip_suffix(']').and_then(|text| text.split_once('[')) {
            Some((names, index)) => (names, Some(index)),
            None => (text, None),
        };
        let is_name = |name: &str| {
            let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            (1..=Self::MAX_NAME).contains(&name.len())
                && !name.starts_with(|first: char| first.is_ascii_digit())
                && name.bytes().all(is_allowed)
        };
        let is_index =
            |index: &str| index.parse::<u8>().is_ok_and(|number| number < 100 && number.to_string() == index);
        if names.split('.').all(is_name)
            && names.split('.').count() <= Self::MAX_NAMES
            && index.is_none_or(is_index)
        {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "“{}” is not the path of a property; write names joined by dots, such as cycles.max_bounces, and an index for a \
             member of an array, such as gravity[2]",
            shortened(text)
        ))
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}

/// A number with a fraction, or too large for [`PropertyItem::Whole`]: finite, and in Blender's precision.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Fraction(f32);

// Never NaN, and never -0.0, which is a whole number.
impl Eq for Fraction {}

impl std::hash::Hash for Fraction {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

/// A single value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged, try_from = "RawItem")]
pub enum PropertyItem {
    Switch(bool),
    Whole(i64),
    Fraction(Fraction),
    Text(String),
}

/// The value of a property.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged, try_from = "RawValue")]
pub enum PropertyValue {
    One(PropertyItem),
    Many(Vec<PropertyItem>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawItem {
    Switch(bool),
    Whole(i64),
    Number(f64),
    Text(String),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawValue {
    One(RawItem),
    Many(Vec<RawItem>),
}

impl TryFrom<RawItem> for PropertyItem {
    type Error = String;

    fn try_from(raw: RawItem) -> Result<Self, String> {
        match raw {
            RawItem::Switch(on) => Ok(Self::Switch(on)),
            RawItem::Whole(number) => Ok(Self::Whole(number)),
            RawItem::Number(number) => Self::number(number),
            RawItem::Text(text) => Self::text(text),
        }
    }
}

impl TryFrom<RawValue> for PropertyValue {
    type Error = String;

    fn try_from(raw: RawValue) -> Result<Self, String> {
        match raw {
            RawValue::One(item) => item.try_into().map(Self::One),
            RawValue::Many(items) => {
                Self::many(items.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?)
            }
        }
    }
}

impl PropertyItem {
    /// The most characters of a text.
    const MAX_TEXT: usize = 1024;

    fn number(number: f64) -> Result<Self, String> {
        const I64_END: f64 = 9_223_372_036_854_775_808.0;
        let is_whole = |number: f64| number.fract() == 0.0 && number.abs() < I64_END;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "one is whole and small enough, the other is to be shorter"
        )]
        let (whole, short) = (|number: f64| Self::Whole(number as i64), number as f32);
        match f64::from(short) {
            _ if is_whole(number) => Ok(whole(number)),
            rounded if is_whole(rounded) => Ok(whole(rounded)),
            rounded if rounded.is_finite() => Ok(Self::Fraction(Fraction(short))),
            _ => Err("a number is too large for Blender".to_owned()),
        }
    }

    fn text(text: String) -> Result<Self, String> {
        if text.chars().any(char::is_control) || text.chars().count() > Self::MAX_TEXT {
            return Err(format!("a text has at most {} characters and no control character", Self::MAX_TEXT));
        }
        Ok(Self::Text(text))
    }
}

impl FromStr for PropertyItem {
    type Err = String;

    /// Reads a word of JSON, or a text without quotes that begins with a letter.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let is_bare = text.starts_with(|first: char| first.is_alphabetic() || first == '_');
        match text {
            "" => Err("a value is missing; \"\" is an empty text".to_owned()),
            // As Blender's Python writes them, too.
            "true" | "True" => Ok(Self::Switch(true)),
            "false" | "False" => Ok(Self::Switch(false)),
            _ if is_bare => Self::text(text.to_owned()),
            _ => serde_json::from_str::<RawItem>(text).map_err(|_| malformed(text))?.try_into(),
        }
    }
}

impl PropertyValue {
    /// The most members of a list.
    const MAX_MEMBERS: usize = 64;

    fn many(items: Vec<PropertyItem>) -> Result<Self, String> {
        if items.len() > Self::MAX_MEMBERS {
            return Err(format!("a list has at most {} members", Self::MAX_MEMBERS));
        }
        Ok(Self::Many(items))
    }
}

impl FromStr for PropertyValue {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(list) = text.trim().strip_prefix('[') else { return text.parse().map(Self::One) };
        let members = list.strip_suffix(']').ok_or_else(|| malformed(text))?;
        if members.trim().is_empty() {
            return Ok(Self::Many(Vec::new()));
        }
        let (mut is_quoted, mut is_escaped) = (false, false);
        let ends_member = |c: char| {
            is_quoted ^= c == '"' && !is_escaped;
            is_escaped = is_quoted && c == '\\' && !is_escaped;
            c == ',' && !is_quoted
        };
        Self::many(members.split(ends_member).map(str::parse).collect::<Result<_, _>>()?)
    }
}

fn malformed(text: &str) -> String {
    format!(
        "“{}” is not a value; write true, false, a number, a text (in double quotes unless it begins with a letter), or a \
         list such as [0.1, 0.2]",
        shortened(text)
    )
}

/// Prints the literal, which reads as the same value. Frozen: it identifies finished frames.
impl fmt::Display for PropertyItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switch(on) => on.fmt(f),
            Self::Whole(number) => number.fmt(f),
            Self::Fraction(Fraction(number)) => number.fmt(f),
            Self::Text(text) => f.write_str(&serde_json::Value::from(text.as_str()).to_string()),
        }
    }
}

/// Prints the literal, which reads as the same value. Frozen: it identifies finished frames.
impl fmt::Display for PropertyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(item) => item.fmt(f),
            Self::Many(items) => {
                let items: Vec<String> = items.iter().map(ToString::to_string).collect();
                write!(f, "[{}]", items.join(", "))
            }
        }
    }
}

/// A property and its value, `cycles.max_bounces=4` on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PropertySetting {
    pub path: PropertyPath,
    pub value: PropertyValue,
}

impl FromStr for PropertySetting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (path, value) = text.split_once('=').ok_or_else(|| {
            format!("“{}” sets nothing; write PROPERTY=VALUE, such as cycles.max_bounces=4", shortened(text))
        })?;
        let path = path.trim().parse()?;
        reserved::check(&path)?;
        Ok(Self { path, value: value.parse()? })
    }
}

/// The properties that a person sets, each once.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Properties(BTreeMap<PropertyPath, PropertyValue>);

impl Properties {
    /// The most properties of a job.
    pub const MAX: usize = 64;

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&PropertyPath, &PropertyValue)> {
        self.0.iter()
    }

    /// The switch at a path, if it is set.
    pub fn switch(&self, path: &str) -> Option<bool> {
        match self.item(path)? {
            PropertyItem::Switch(on) => Some(*on),
            _ => None,
        }
    }

    /// The text at a path, if it is set.
    pub fn text(&self, path: &str) -> Option<&str> {
        match self.item(path)? {
            PropertyItem::Text(text) => Some(text),
            _ => None,
        }
    }

    fn item(&self, path: &str) -> Option<&PropertyItem> {
        match self.0.get(path)? {
            PropertyValue::One(item) => Some(item),
            PropertyValue::Many(_) => None,
        }
    }

    /// # Errors
    /// There are too many, one is decided in another way, or an array is set both as a whole and by its members.
    pub fn check(&self) -> Result<(), String> {
        if self.0.len() > Self::MAX {
            return Err(format!("at most {} properties can be set", Self::MAX));
        }
        for path in self.0.keys() {
            reserved::check(path)?;
            if path.name() != path.0 && self.0.contains_key(path.name()) {
                return Err(format!("{} is set as a whole and by its member {path}", path.name()));
            }
        }
        Ok(())
    }
}

/// The later of two values of one property counts.
impl FromIterator<PropertySetting> for Properties {
    fn from_iter<T: IntoIterator<Item = PropertySetting>>(settings: T) -> Self {
        Self(settings.into_iter().map(|setting| (setting.path, setting.value)).collect())
    }
}

fn items() -> OneOfBuilder {
    let text = ObjectBuilder::new()
        .schema_type(Type::String)
        .max_length(Some(PropertyItem::MAX_TEXT))
        .pattern(Some(format!("^[^{CONTROL}]*$")));
    OneOfBuilder::new()
        .item(ObjectBuilder::new().schema_type(Type::Boolean))
        .item(ObjectBuilder::new().schema_type(Type::Number))
        .item(text)
}

impl PartialSchema for Properties {
    fn schema() -> RefOr<Schema> {
        let list = ArrayBuilder::new().items(items()).max_items(Some(PropertyValue::MAX_MEMBERS));
        let RefOr::T(path) = PropertyPath::schema() else { return PropertyPath::schema() };
        ObjectBuilder::new()
            .description(Some(
                "Properties of the scene that renders, of its render settings and its engine, each by its path in Blender.",
            ))
            .property_names(Some(path))
            .additional_properties(Some(AdditionalProperties::RefOr(items().item(list).into())))
            .max_properties(Some(Self::MAX))
            .into()
    }
}

impl ToSchema for Properties {}

#[cfg(test)]
mod tests;
