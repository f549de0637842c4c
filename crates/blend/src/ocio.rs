//! The files of a colour configuration (OCIO): itself, and every table that it names.
//!
//! Only two keys of the YAML matter, `search_path` and the `src` of file transforms, so they are looked for line by
//! line, and the rest is not parsed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use kiln_types::RelPath;

use crate::{
    disk::DiskView,
    places::parent,
    resolve::{is_windows, tidy},
};

/// Bytes of a configuration; the largest in use have some hundred thousand.
const MAX_CONFIG: u64 = 16 << 20;
/// Files that are taken where names depend on variables.
const MAX_TABLES: usize = 10_000;
const MAX_DEPTH: usize = 8;

/// A configuration and its tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OcioFiles {
    /// The place of the configuration among the files.
    pub config: RelPath,
    /// The places to each other, and the paths on this disk. Sorted; the configuration is among them.
    pub files: Vec<(RelPath, PathBuf)>,
    /// Tables that are named and not there, as they are named. Colours that need them fail.
    pub missing: Vec<String>,
}

/// A configuration that cannot be taken along, and why.
#[derive(Debug, thiserror::Error)]
#[error("the colour configuration {} cannot be used: {fault}", path.display())]
pub struct OcioError {
    pub path: PathBuf,
    #[source]
    pub fault: OcioFault,
}

/// The reason why a configuration cannot be part of a bundle.
#[derive(Debug, thiserror::Error)]
pub enum OcioFault {
    #[error("it cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    #[error("it is an archive; unpack it (ocioarchive --extract), and name the config.ocio inside")]
    Archive,
    #[error("it is no OCIO configuration: it has no ocio_profile_version")]
    NotAConfig,
    #[error("it has more than {} MiB", MAX_CONFIG >> 20)]
    TooLarge,
    #[error("it names {0}, a path that no worker has; name it relatively to the configuration")]
    Absolute(String),
    #[error("{} cannot be part of a bundle; give it a plain name", .0.display())]
    Name(PathBuf),
}

/// Reads a configuration and finds the tables it names.
///
/// # Errors
/// Where it is no configuration, or one that works on this machine alone.
pub fn find_ocio_files(config: &Path) -> Result<OcioFiles, OcioError> {
    find(config).map_err(|fault| OcioError { path: config.to_owned(), fault })
}

fn find(config: &Path) -> Result<OcioFiles, OcioFault> {
    if config.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("ocioz")) {
        return Err(OcioFault::Archive);
    }
    let config = std::path::absolute(config).map(|path| tidy(&path)).map_err(OcioFault::Unreadable)?;
    let size = fs::metadata(&config).map_err(OcioFault::Unreadable)?.len();
    if size > MAX_CONFIG {
        return Err(OcioFault::TooLarge);
    }
    let bytes = fs::read(&config).map_err(OcioFault::Unreadable)?;
    if bytes.starts_with(b"PK\x03\x04") {
        return Err(OcioFault::Archive);
    }
    let text = String::from_utf8_lossy(&bytes);
    if !text.lines().any(|line| line.starts_with("ocio_profile_version:")) {
        return Err(OcioFault::NotAConfig);
    }
    let named = Named::read(&text);
    let home = parent(&config);
    let mut disk = DiskView::default();
    let mut tables = BTreeSet::new();
    let mut missing = Vec::new();
    let mut whole = named.search.iter().any(|path| is_variable(path));
    let mut folders: Vec<PathBuf> = Vec::new();
    for path in named.search.iter().filter(|path| !is_variable(path)) {
        folders.push(below(home, path)?);
    }
    if folders.is_empty() {
        folders.push(home.to_owned());
    }
    for name in &named.tables {
        if is_variable(name) {
            whole = true;
            continue;
        }
        below(home, name)?;
        let found = folders.iter().map(|folder| tidy(&folder.join(name))).find(|path| path.is_file());
        match found {
            Some(path) => drop(tables.insert(path)),
            None => missing.push(name.clone()),
        }
    }
    if whole {
        // Which table is meant, the shot's environment says.
        for folder in folders.iter().map(PathBuf::as_path).chain([home]) {
            all_below(folder, &mut disk, &mut tables);
        }
    }
    place(config, tables, missing)
}

/// `$SHOT`, `${SHOT}` and `%SHOT%`.
fn is_variable(name: &str) -> bool {
    name.contains(['$', '%'])
}

fn below(home: &Path, name: &str) -> Result<PathBuf, OcioFault> {
    if Path::new(name).is_absolute() || is_windows(name.as_bytes()) {
        return Err(OcioFault::Absolute(name.to_owned()));
    }
    Ok(tidy(&home.join(name)))
}

fn all_below(folder: &Path, disk: &mut DiskView, tables: &mut BTreeSet<PathBuf>) {
    let mut todo = vec![(folder.to_owned(), 0)];
    while let Some((folder, depth)) = todo.pop() {
        for (name, is_folder) in &disk.list(&folder).names {
            let path = folder.join(name);
            if *is_folder && depth < MAX_DEPTH && !path.is_symlink() {
                todo.push((path, depth + 1));
            } else if !is_folder && tables.len() < MAX_TABLES {
                tables.insert(path);
            }
        }
    }
}

/// Places to each other are kept: all lie below the deepest folder above them.
fn place(config: PathBuf, tables: BTreeSet<PathBuf>, missing: Vec<String>) -> Result<OcioFiles, OcioFault> {
    let mut root = parent(&config);
    while !tables.iter().all(|table| table.starts_with(root)) {
        root = parent(root);
    }
    let place = |path: &Path| {
        let parts = path.strip_prefix(root).ok()?.iter().map(|part| part.to_str());
        RelPath::new(&parts.collect::<Option<Vec<_>>>()?.join("/")).ok()
    };
    let mut files = BTreeMap::new();
    for path in tables.into_iter().chain([config.clone()]) {
        files.insert(place(&path).ok_or_else(|| OcioFault::Name(path.clone()))?, path);
    }
    let config = place(&config).ok_or(OcioFault::Name(config))?;
    Ok(OcioFiles { config, files: files.into_iter().collect(), missing })
}

/// The files and folders that a configuration names.
#[derive(Default)]
struct Named {
    search: Vec<String>,
    tables: BTreeSet<String>,
}

impl Named {
    fn read(text: &str) -> Self {
        let mut named = Self::default();
        let mut in_search = false;
        let mut in_file = false;
        for line in text.lines().map(without_comment) {
            if let Some(value) = line.strip_prefix("search_path:") {
                named.search = list(value);
                in_search = true;
                continue;
            }
            if let Some(item) = line.trim_start().strip_prefix("- ").filter(|_| in_search) {
                named.search.extend(list(item));
                continue;
            }
            in_search &= line.trim().is_empty();
            named.tables.extend(sources(line, &mut in_file));
        }
        named
    }
}

/// A `#` begins a comment at the start of a line and after a space, outside of quotes.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        match (quote, c) {
            (None, '#') if before.is_whitespace() => return &line[..at],
            (None, '"' | '\'') if !before.is_alphanumeric() => quote = Some(c),
            (Some(open), _) if open == c => quote = None,
            _ => {}
        }
        before = c;
    }
    line
}

/// `luts:looks`, `[luts, looks]`, `"luts"`.
fn list(value: &str) -> Vec<String> {
    let value = value.trim();
    let items: Vec<&str> = match value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(items) => items.split(',').collect(),
        // A drive's colon divides nothing.
        None if is_windows(unquoted(value).as_bytes()) => vec![value],
        None => unquoted(value).split(':').collect(),
    };
    items.into_iter().map(|item| unquoted(item.trim()).to_owned()).filter(|item| !item.is_empty()).collect()
}

fn unquoted(text: &str) -> &str {
    let inner = |quote: char| text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    inner('"').or_else(|| inner('\'')).unwrap_or(text)
}

/// The values of `src:` in a line, whether in braces or alone, that belong to a transform by a file; other
/// transforms call a colour space so. The last tag (`!<FileTransform>`) says which it is, also on later lines.
fn sources(line: &str, in_file: &mut bool) -> Vec<String> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(next) = line[at..].find(['!', 's']).map(|next| at + next) {
        let rest = &line[next..];
        at = next + 1;
        if rest.starts_with("!<") {
            *in_file = rest.starts_with("!<FileTransform>");
        }
        let before = line[..next].chars().next_back();
        let is_key = before.is_none_or(|c| c.is_whitespace() || c == '{' || c == ',');
        let Some(value) = rest.strip_prefix("src:").filter(|_| *in_file && is_key) else { continue };
        found.extend(scalar(value.trim_start()).filter(|name| !name.is_empty()).map(str::to_owned));
    }
    found
}

/// A value in quotes, or to the end of its place.
fn scalar(value: &str) -> Option<&str> {
    let end = match value.chars().next()? {
        quote @ ('"' | '\'') => value[1..].find(quote)? + 2,
        _ => value.find([',', '}']).unwrap_or(value.len()),
    };
    Some(unquoted(value[..end].trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Home(tempfile::TempDir);

    impl Home {
        fn new(config: &str, tables: &[&str]) -> Self {
            let home = Self(tempfile::tempdir().unwrap());
            for (name, bytes) in tables.iter().map(|name| (*name, "x")).chain([("a/config.ocio", config)]) {
                let path = home.0.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, bytes).unwrap();
            }
            home
        }

        fn find(&self) -> Result<OcioFiles, OcioError> {
            find_ocio_files(&self.0.path().join("a/config.ocio"))
        }

        #[track_caller]
        fn check(&self, expected: &[&str], missing: &[&str]) {
            let found = self.find().unwrap();
            let places: Vec<_> = found.files.iter().map(|(place, _)| place.as_str()).collect();
            assert_eq!(
                (places, found.missing),
                (expected.to_vec(), missing.iter().map(|n| n.to_string()).collect())
            );
        }
    }

    const HEAD: &str = "ocio_profile_version: 2\n";

    #[test]
    fn tables_are_found_in_every_way_of_writing() {
        let config = format!(
            "{HEAD}search_path: luts:\"looks\" # where: they lie\n\
             description: no src here, 'and # none'\n\
             colorspaces:\n  - !<ColorSpace>\n    name: a\n\
             \x20   from_scene_reference: !<FileTransform> {{src: one.cube, interpolation: linear}}\n\
             \x20   to_scene_reference: !<GroupTransform>\n      children:\n\
             \x20       - !<FileTransform>\n          src: 'two words.spi1d'\n\
             \x20       - !<FileTransform> {{cccid: x, src: \"look, a.csp\"}}\n\
             # src: commented.cube\n\
             \x20   - !<ColorSpaceTransform> {{src: Linear, dst: a}}\n    - !<FileTransform> {{src: gone.cube}}\n"
        );
        let tables =
            ["a/luts/one.cube", "a/luts/two words.spi1d", "a/looks/look, a.csp", "a/luts/other.cube"];
        Home::new(&config, &tables).check(
            &["config.ocio", "looks/look, a.csp", "luts/one.cube", "luts/two words.spi1d"],
            &["gone.cube"],
        );
    }

    #[test]
    fn lists_of_folders_and_folders_beside_the_configuration() {
        for search in [
            "search_path: [luts, \"../shared\"]\n",
            "search_path:\n  - luts\n  - ../shared\n",
            "search_path:\n- luts\n- ../shared\n",
        ] {
            let config =
                format!("{HEAD}{search}strictparsing: true\n  a: !<FileTransform> {{src: s.cube}}\n");
            let home = Home::new(&config, &["shared/s.cube", "shared/unused.cube"]);
            home.check(&["a/config.ocio", "shared/s.cube"], &[]);
            assert_eq!(home.find().unwrap().config.as_str(), "a/config.ocio");
        }
        // Without a search path, beside the configuration.
        let config = format!("{HEAD}  a: !<FileTransform> {{src: sub/s.cube}}\n");
        Home::new(&config, &["a/sub/s.cube"]).check(&["config.ocio", "sub/s.cube"], &[]);
    }

    #[test]
    fn what_the_environment_decides_takes_whole_folders_along() {
        let config = format!("{HEAD}search_path: luts\n  a: !<FileTransform> {{src: $SHOT/grade.cc}}\n");
        let home = Home::new(&config, &["a/luts/s1/grade.cc", "a/luts/s2/grade.cc"]);
        home.check(&["config.ocio", "luts/s1/grade.cc", "luts/s2/grade.cc"], &[]);
    }

    #[test]
    fn what_works_on_one_machine_alone_is_refused() {
        let refused = |config: &str| Home::new(config, &[]).find().unwrap_err().fault.to_string();
        let absolute = refused(&format!("{HEAD}search_path: /srv/luts\n"));
        assert_eq!(
            absolute,
            "it names /srv/luts, a path that no worker has; name it relatively to the configuration"
        );
        assert!(refused(&format!("{HEAD}search_path: C:\\luts\n")).contains("C:\\luts"));
        assert!(refused("nothing: here").contains("ocio_profile_version"));
        assert!(refused("PK\u{3}\u{4}").contains("archive"));
        let fault = find_ocio_files(Path::new("/nowhere/studio.ocioz")).unwrap_err().to_string();
        assert!(
            fault.starts_with("the colour configuration /nowhere/studio.ocioz cannot be used"),
            "{fault}"
        );
    }
}
