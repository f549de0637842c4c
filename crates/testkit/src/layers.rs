//! The imports between the files of a crate, against the order of its layers.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// The source files of a crate by their path below `src`, without comments and tests.
struct Sources(BTreeMap<String, String>);

/// Imports that go up: from a file to one that is not below it in `layers`, the highest first. Every file but `lib.rs`
/// and those below `tests/` must be in `layers`.
///
/// # Panics
/// If a file cannot be read, or is not in `layers`, or one of `layers` is no file.
pub fn upward_imports(src: &Path, layers: &[&str]) -> Vec<String> {
    let sources = Sources::read(src);
    let exports = sources.exports();
    let rank = |file: &str| layers.iter().position(|layer| *layer == file);
    for layer in layers {
        assert!(sources.0.contains_key(*layer), "{layer} is no file of {}", src.display());
    }
    let mut upward = Vec::new();
    for file in sources.0.keys().filter(|file| *file != "lib.rs") {
        let own = rank(file).unwrap_or_else(|| panic!("{file} is in no layer"));
        for import in sources.imports(file, &exports) {
            if rank(&import).is_some_and(|other| other <= own) {
                upward.push(format!("{file} imports {import}"));
            }
        }
    }
    upward
}

impl Sources {
    fn read(src: &Path) -> Self {
        let mut files = BTreeMap::new();
        let mut folders = vec![src.to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() && !path.ends_with("tests") {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let name = path.strip_prefix(src).unwrap().to_string_lossy().into_owned();
                    files.insert(name, code(&fs::read_to_string(&path).unwrap()));
                }
            }
        }
        Self(files)
    }

    /// The files in which the names are defined that `lib.rs` re-exports.
    fn exports(&self) -> BTreeMap<String, String> {
        let lib = &self.0["lib.rs"];
        let paths = lib.match_indices("pub use ").flat_map(|(at, word)| {
            let rest = &lib[at + word.len()..];
            tree(&rest[..rest.find(';').unwrap_or(rest.len())])
        });
        paths
            .filter_map(|path| {
                let own: Vec<String> = path.into_iter().filter(|part| part != "crate").collect();
                Some((own.last()?.clone(), self.file(&own)?))
            })
            .collect()
    }

    /// The file of the longest beginning of a path of modules that is one.
    fn file(&self, path: &[String]) -> Option<String> {
        (1..=path.len()).rev().find_map(|length| {
            let module = path[..length].join("/");
            let names = [format!("{module}.rs"), format!("{module}/mod.rs")];
            names.into_iter().find(|name| self.0.contains_key(name))
        })
    }

    /// The other files that this one names, in imports and in the code.
    fn imports(&self, file: &str, exports: &BTreeMap<String, String>) -> BTreeSet<String> {
        let code = &self.0[file];
        let mut paths = Vec::new();
        for (at, word) in code.match_indices("use ") {
            let rest = &code[at + word.len()..];
            if code[..at].ends_with(|before: char| before.is_whitespace()) || at == 0 {
                paths.extend(tree(&rest[..rest.find(';').unwrap_or(rest.len())]));
            }
        }
        for start in ["crate::", "super::"] {
            for (at, _) in code.match_indices(start) {
                let is_part = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':';
                let rest = &code[at..];
                let end = rest.find(|letter| !is_part(letter)).unwrap_or(rest.len());
                // The path of a `use` tree, which was read above.
                if !rest[end..].starts_with('{') {
                    paths.extend(tree(&rest[..end]));
                }
            }
        }
        let module = module_of(file);
        let absolute = paths.into_iter().filter_map(|path| match path.first().map(String::as_str) {
            Some("crate") => Some(path[1..].to_vec()),
            Some("super") => {
                let up = path.iter().take_while(|part| *part == "super").count();
                let base = module.len().checked_sub(up)?;
                Some([&module[..base], &path[up..]].concat())
            }
            Some("self") => Some([&module[..], &path[1..]].concat()),
            _ => None,
        });
        let found =
            absolute.filter_map(|path| self.file(&path).or_else(|| exports.get(path.first()?).cloned()));
        found.filter(|other| other != file).collect()
    }
}

/// The module of a file, as its path.
fn module_of(file: &str) -> Vec<String> {
    let stem = file.trim_end_matches(".rs").trim_end_matches("/mod");
    stem.split('/').map(str::to_owned).collect()
}

/// The paths of a `use` tree.
fn tree(text: &str) -> Vec<Vec<String>> {
    let text = text.trim();
    let path = |text: &str| -> Vec<String> {
        text.split("::").map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
    };
    let Some((head, rest)) = text.split_once('{') else {
        let plain = text.split(" as ").next().unwrap_or_default();
        return if plain.is_empty() { Vec::new() } else { vec![path(plain)] };
    };
    let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
    let (mut depth, mut begin, mut parts) = (0, 0, Vec::new());
    for (at, letter) in inner.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&inner[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&inner[begin..]);
    let under = parts.into_iter().flat_map(tree);
    under.map(|under| [path(head), under].concat()).collect()
}

/// The code without comments, and without what follows its tests.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_and_modules_are_read() {
        let paths: Vec<String> =
            tree("crate::{\n  a::{B, c::D as E},\n  f,\n}").iter().map(|path| path.join("::")).collect();
        assert_eq!(paths, ["crate::a::B", "crate::a::c::D", "crate::f"]);
        assert_eq!(module_of("state/mod.rs"), ["state"]);
        assert_eq!(module_of("state/job.rs"), ["state", "job"]);
        assert_eq!(code("use a; // use b;\n#[cfg(test)]\nmod tests {\nuse c;\n}"), "use a; ");
    }

    #[test]
    fn what_goes_up_is_found_and_what_goes_down_is_not() {
        let folder = crate::temp_dir();
        let write = |name: &str, text: &str| {
            fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
            fs::write(folder.path().join(name), text).unwrap();
        };
        write("lib.rs", "mod low;\nmod high;\npub use high::Tall;\n");
        write("low/mod.rs", "pub mod inner;\n");
        write("low/inner.rs", "use super::{least::Dot};\nuse crate::Tall;\n");
        write("low/least.rs", "pub struct Dot;\n");
        write("high.rs", "use crate::low::inner::Small;\npub struct Tall(crate::low::Other);\n");
        let upward =
            upward_imports(folder.path(), &["high.rs", "low/mod.rs", "low/inner.rs", "low/least.rs"]);
        assert_eq!(upward, ["low/inner.rs imports high.rs"]);
        let upward =
            upward_imports(folder.path(), &["low/least.rs", "low/inner.rs", "low/mod.rs", "high.rs"]);
        assert_eq!(
            upward,
            [
                "high.rs imports low/inner.rs",
                "high.rs imports low/mod.rs",
                "low/inner.rs imports low/least.rs"
            ]
        );
    }
}
