//! Pictures held against each other: pixels, and the texts of a PNG.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

use anyhow::Result;
use kiln_image::same_pixels;

/// Compares a frame with the cold one; `None` if they are equal.
pub fn difference(cold: &BTreeMap<String, PathBuf>, kiln: &BTreeMap<String, PathBuf>) -> Option<String> {
    let names = |files: &BTreeMap<String, PathBuf>| files.keys().cloned().collect::<BTreeSet<_>>();
    let (expected, found) = (names(cold), names(kiln));
    if expected != found {
        return Some(format!("Blender writes {expected:?}, Kiln {found:?}"));
    }
    cold.iter().find_map(|(name, file)| pixels(file, &kiln[name]).map(|how| format!("{name}: {how}")))
}

/// Compares two pictures; `None` if every sample is equal.
pub fn pixels(one: &Path, other: &Path) -> Option<String> {
    match same_pixels(one, other) {
        Ok(difference) if difference.is_none() => None,
        Ok(difference) => Some(format!(
            "{} of {} values differ, by up to {}",
            difference.differing, difference.total, difference.max_abs
        )),
        Err(error) => Some(error.to_string()),
    }
}

/// The metadata is of the render and not of the picture: it differs from one to the next.
fn is_of_the_run(key: &str) -> bool {
    ["Date", "RenderTime", "Memory", "Hostname"].contains(&key) || key.ends_with("_time")
}

/// Compares the texts of two PNGs, but for those that differ in each run.
pub fn texts(one: &Path, other: &Path) -> Option<String> {
    let read = |path: &Path| -> Result<BTreeMap<String, String>> {
        let reader = png::Decoder::new(BufReader::new(File::open(path)?)).read_info()?;
        let info = reader.info();
        let latin = info.uncompressed_latin1_text.iter().map(|t| (t.keyword.clone(), t.text.clone()));
        let mut texts: BTreeMap<_, _> = latin.filter(|(key, _)| !is_of_the_run(key)).collect();
        for text in &info.compressed_latin1_text {
            texts.insert(text.keyword.clone(), text.get_text().unwrap_or_default());
        }
        Ok(texts)
    };
    let (Ok(one), Ok(other)) = (read(one), read(other)) else { return None };
    let keys: BTreeSet<_> = one.keys().chain(other.keys()).collect();
    keys.into_iter().find(|key| one.get(*key) != other.get(*key)).map(|key| {
        let text = |texts: &BTreeMap<String, String>| texts.get(key).cloned().unwrap_or("nothing".to_owned());
        format!("the text {key} is {:?}, not {:?}", text(&other), text(&one))
    })
}
