//! Parses the texts of a setting. All layers share one parser.

use std::{
    collections::BTreeMap, ffi::OsStr, fmt::Display, ops::RangeInclusive, path::PathBuf, str::FromStr,
};

use kiln_types::ShortName;

use crate::shared::SharedFolder;

/// Reads and shows one value.
pub struct Item<X> {
    pub parse: fn(&OsStr) -> Result<X, String>,
    pub show: fn(&X) -> String,
}

/// The values of a setting, and its default.
pub struct Shape<X, T> {
    pub item: Item<X>,
    /// Makes the setting of its values; `None` leaves the default.
    gather: fn(Vec<X>) -> Option<T>,
    default: T,
    /// The default in words.
    pub words: String,
    /// The words are a value, and not a description.
    pub words_are_value: bool,
}

impl<X, T> Shape<X, T> {
    pub fn value(self, items: Vec<X>) -> T {
        (self.gather)(items).unwrap_or(self.default)
    }
}

/// A setting that always has a value.
pub fn one<X>(item: Item<X>, default: X) -> Shape<X, X> {
    let words = (item.show)(&default);
    Shape { item, gather: |items| items.into_iter().next_back(), default, words, words_are_value: true }
}

/// A setting that may have a value.
pub fn maybe<X>(item: Item<X>, words: &str) -> Shape<X, Option<X>> {
    let gather = |items: Vec<X>| items.into_iter().next_back().map(Some);
    Shape { item, gather, default: None, words: words.to_owned(), words_are_value: false }
}

/// A setting with any number of values.
pub fn many<X>(item: Item<X>, words: &str) -> Shape<X, Vec<X>> {
    Shape { item, gather: Some, default: Vec::new(), words: words.to_owned(), words_are_value: false }
}

/// A setting of folders by name.
pub fn folders() -> Shape<SharedFolder, BTreeMap<ShortName, PathBuf>> {
    let gather = |items: Vec<SharedFolder>| {
        Some(items.into_iter().map(|one| (one.name, one.root)).collect::<BTreeMap<_, _>>())
    };
    let words = "none".to_owned();
    Shape { item: plain(), gather, default: BTreeMap::new(), words, words_are_value: false }
}

/// Reads and shows a value as its type does.
pub fn plain<X: FromStr<Err: Display> + Display>() -> Item<X> {
    item(parsed)
}

/// Shows a value as its type does, and reads it by this parser.
pub fn item<X: Display>(parse: fn(&OsStr) -> Result<X, String>) -> Item<X> {
    Item { parse, show: X::to_string }
}

pub fn path() -> Item<PathBuf> {
    let parse = |text: &OsStr| match text.is_empty() {
        true => Err("it is empty".to_owned()),
        false => Ok(PathBuf::from(text)),
    };
    Item { parse, show: |path| path.display().to_string() }
}

/// Reads a path, and makes it absolute.
pub fn absolute_path() -> Item<PathBuf> {
    let parse = |text: &OsStr| {
        let path = (path().parse)(text)?;
        Ok(std::path::absolute(&path).unwrap_or(path))
    };
    Item { parse, ..path() }
}

fn parsed<X: FromStr<Err: Display>>(text: &OsStr) -> Result<X, String> {
    let text = text.to_str().ok_or("it is not Unicode")?;
    text.parse().map_err(|why: X::Err| why.to_string())
}

/// Reads a number from a range.
pub fn between<X>(text: &OsStr, range: RangeInclusive<X>) -> Result<X, String>
where
    X: FromStr<Err: Display> + PartialOrd + Display,
{
    let number: X = parsed(text)?;
    if range.contains(&number) {
        Ok(number)
    } else {
        Err(format!("it must be between {} and {}", range.start(), range.end()))
    }
}

/// Reads a number of whole cores.
pub fn cores(text: &OsStr) -> Result<u32, String> {
    match parsed::<u32>(text)? {
        0 => Err("the farm needs at least one".to_owned()),
        cores => Ok(cores),
    }
}

/// Reads a load in cores.
pub fn load(text: &OsStr) -> Result<f64, String> {
    let load: f64 = parsed(text)?;
    if load.is_finite() && load > 0.0 {
        Ok(load)
    } else {
        Err("it is a number of cores, such as 1.5".to_owned())
    }
}
