//! The names and the words of the workspace: one public type for one name, comments that begin with a noun or a verb,
//! and the terms of docs/glossary.md instead of private ones.

use std::{
    collections::{BTreeMap, HashMap},
    fmt, fs,
    path::Path,
};

/// Words that are not used: each with the term to use, and the contexts in which it is fine.
struct Banned {
    words: &'static [&'static str],
    say: &'static str,
    allowed: &'static [&'static str],
}

const fn banned(
    words: &'static [&'static str],
    say: &'static str,
    allowed: &'static [&'static str],
) -> Banned {
    Banned { words, say, allowed }
}

/// Names are compared word by word: `SlotWish`, `slot_wish` and "slot wish" are the same.
const BANNED: &[Banned] = &[
    banned(&["brain"], "scheduler", &[]),
    banned(&["wish", "wishes", "wished"], "desired state; availability", &[]),
    banned(&["rests", "resting"], "unavailable", &[]),
    banned(&["twin", "twins"], "speculative attempt", &[]),
    banned(&["lapse", "lapses", "lapsed"], "expired", &[]),
    banned(&["overdue"], "time limit, hang timeout", &[]),
    banned(
        &["infirmary", "sick", "heal", "heals", "healed", "convalescence", "trial"],
        "quarantine, probe",
        &[],
    ),
    banned(&["befell", "blame", "blamed"], "failure origin, failure history", &[]),
    banned(&["garage"], "process pool", &[]),
    banned(&["seat", "seats"], "Blender process; slot reference", &[]),
    banned(&["reign", "reigns"], "epoch", &[]),
    banned(&["stolen", "recall", "recalled", "make way", "makes way", "asked back"], "revoke, preempt", &[]),
    banned(&["hand out", "hands out", "handed out", "handing out"], "dispatch, assign", &[]),
    banned(&["hand back", "hands back", "handed back"], "return", &[]),
    banned(&["give up", "gives up", "gave up", "given up"], "cancel, abort, return", &[]),
    banned(&["party", "parties", "share holder"], "fair-share account", &["third party"]),
    banned(
        &["standing", "stands", "stand"],
        "scheduling options; or a plain verb",
        &["stands for", "stand for", "stands still", "stand still", "standing still"],
    ),
    banned(
        &["spot", "spots"],
        "frame order; path reference",
        &["spot size", "spot light", "spot blend", "\" spot \"", "spot . ies"],
    ),
    banned(&["laid"], "materialized, layout", &["laid out"]),
    banned(&["led"], "remapped, passed", &[]),
    banned(&["artifact", "artifacts"], "output, intermediate, preview", &[]),
    banned(
        &["film", "films"],
        "video",
        &[
            "film transparent",
            "transparent film",
            "film filter",
            "film exposure",
            "film pixel",
            "film negative",
            "use film",
            // Names of projects and of lamps in tests.
            "\" film \"",
            "ana / film",
        ],
    ),
    banned(&["storm", "storms"], "fault-injection run", &[]),
    banned(&["merge step", "finish step"], "finalize", &[]),
    banned(&["anew"], "again", &[]),
    banned(&["no more"], "no longer, nothing else", &["no more than"]),
    banned(&["so many"], "a number of", &["so many that"]),
    banned(&["whoever", "whosoever", "of which nobody knows"], "the noun", &[]),
    banned(&["for ever"], "without end", &[]),
    banned(&["lets go", "let go", "letting go"], "release, expire, drop", &[]),
    banned(&["comes along", "come along", "came along"], "is included", &[]),
    banned(
        &["befit", "thereupon", "hence", "whence", "thence", "therein", "lest", "amiss"],
        "a plain word",
        &[],
    ),
];

/// Words that are not a noun, or that say nothing alone. They are no name of a public type.
const NO_TYPE_NAMES: &[&str] = &[
    "Absent",
    "Ahead",
    "Around",
    "Asked",
    "Awaited",
    "Bed",
    "Begun",
    "Belongs",
    "Bench",
    "Beside",
    "Brings",
    "Chosen",
    "Coming",
    "Compared",
    "Desk",
    "Draws",
    "Ending",
    "Ends",
    "Expires",
    "Farmed",
    "Followed",
    "Found",
    "Gathered",
    "Given",
    "Ground",
    "Hashed",
    "How",
    "HowMany",
    "Inside",
    "Kept",
    "Known",
    "Lack",
    "Lacking",
    "Laid",
    "Landed",
    "Landing",
    "Late",
    "Left",
    "Lie",
    "Looks",
    "Made",
    "Met",
    "Missing",
    "Near",
    "Now",
    "Offered",
    "Opened",
    "Over",
    "Party",
    "Placed",
    "Reached",
    "Received",
    "Renamed",
    "Resolved",
    "Rewritten",
    "Said",
    "Sent",
    "Served",
    "Shop",
    "Shown",
    "Spot",
    "Story",
    "Stops",
    "Taken",
    "Telling",
    "Tied",
    "Told",
    "Unlasting",
    "Waits",
    "Walked",
    "Wanted",
    "Watched",
    "Where",
    "Which",
    "Who",
    "Whole",
    "Why",
    "Written",
    "Yields",
];

/// First words of a comment that is not a sentence, or whose noun is elsewhere.
const HEADLESS: &[&str] = &[
    "What", "Where", "Whether", "Who", "Whoever", "Whose", "Whom", "How", "Which", "Why", "When", "It",
    "Its", "They", "Their",
];

/// A place that breaks a rule.
#[derive(Debug)]
pub struct Violation {
    /// The crate; or `blender`, `docs`, `scripts`, `tests`.
    pub part: String,
    /// The path below the root of the workspace.
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// The rule and the term to use.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

/// The violations of a whole workspace, in the order of its files.
///
/// # Panics
/// If a file cannot be read.
pub fn word_violations(root: &Path) -> Vec<Violation> {
    let banned = Phrases::new();
    let mut found = Vec::new();
    let mut types: BTreeMap<String, Vec<(String, usize)>> = BTreeMap::new();
    for file in files(root) {
        let text = fs::read_to_string(root.join(&file)).unwrap();
        let mut report = |line: usize, message: String| {
            found.push(Violation { part: part(&file), file: file.clone(), line, message });
        };
        banned.check(&text, &mut report);
        if file.ends_with(".rs") || file.starts_with("blender/") {
            check_first_words(&text, &mut report);
        }
        if file.ends_with(".rs") && !is_test(&file) {
            for (name, line) in public_types(&text) {
                if NO_TYPE_NAMES.contains(&name) {
                    report(line, format!("the type {name}: not a noun, or not specific"));
                }
                types.entry(name.to_owned()).or_default().push((file.clone(), line));
            }
        }
    }
    for (name, places) in types.iter().filter(|(_, places)| places.len() > 1) {
        for (file, line) in places {
            let others = places.iter().filter(|place| *place != &(file.clone(), *line));
            let others: Vec<_> = others.map(|(file, line)| format!("{file}:{line}")).collect();
            let message = format!("the type {name} is also in {}: rename one", others.join(", "));
            found.push(Violation { part: part(file), file: file.clone(), line: *line, message });
        }
    }
    found.sort_by(|a, b| (&a.part, &a.file, a.line).cmp(&(&b.part, &b.file, b.line)));
    found
}

/// Sources and pages below the root, as paths with `/`. Third-party and generated files are left out, and this one.
fn files(root: &Path) -> Vec<String> {
    let mut folders: Vec<String> =
        ["crates", "blender", "tests", "docs", "scripts", "bench", "examples"].map(str::to_owned).to_vec();
    let pages = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"].map(str::to_owned);
    let mut files: Vec<String> = pages.into_iter().filter(|page| root.join(page).exists()).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let path = format!("{folder}/{name}");
            if entry.file_type().unwrap().is_dir() {
                if !["fixtures", "brought", "migrations", "target", "__pycache__"].contains(&name.as_str()) {
                    folders.push(path);
                }
            } else if path != "crates/testkit/src/words.rs" && path != "docs/fidelity.md" {
                let extension = name.rsplit_once('.').map(|(_, extension)| extension);
                let is_script = extension.is_none() && !folder.starts_with("crates");
                if is_script || extension.is_some_and(|e| ["rs", "py", "md", "sh", "sql"].contains(&e)) {
                    files.push(path);
                }
            }
        }
    }
    files.sort();
    files
}

fn part(file: &str) -> String {
    let mut folders = file.split('/');
    match folders.next().unwrap() {
        "crates" => folders.next().unwrap().to_owned(),
        "bench" | "examples" | "scripts" => "scripts".to_owned(),
        page if page.ends_with(".md") => "docs".to_owned(),
        folder => folder.to_owned(),
    }
}

/// Returns whether a file of a crate is only built for tests.
fn is_test(file: &str) -> bool {
    let folders = ["/tests/", "/examples/", "/benches/", "/fuzz/"];
    file.starts_with("tests/")
        || file.starts_with("crates/testkit/")
        || file.starts_with("crates/fidelity/")
        || folders.iter().any(|folder| file.contains(folder))
        || file.ends_with("tests.rs")
}

/// The public types that a file declares, with their lines. Tests at its end are left out.
fn public_types(text: &str) -> impl Iterator<Item = (&str, usize)> {
    let before_tests = text.lines().take_while(|line| line.trim() != "mod tests {");
    before_tests.enumerate().filter_map(|(at, line)| {
        let public = line.trim_start().strip_prefix("pub")?;
        let mut words = public.trim_start_matches(|c| c != ' ').split_whitespace();
        if public.starts_with("(in ") {
            words.next();
        }
        let is_type = ["struct", "enum", "trait", "type", "union"].contains(&words.next()?);
        let name = words.next().filter(|_| is_type)?;
        let name = name.split(|c: char| !c.is_alphanumeric()).next()?;
        // The name of a macro's type is a parameter.
        (!name.is_empty()).then_some((name, at + 1))
    })
}

/// Checks the first word of each documentation comment, and of each docstring.
fn check_first_words(text: &str, report: &mut dyn FnMut(usize, String)) {
    let mut is_inside = false;
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        let comment = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
        let opening = comment.filter(|_| !is_inside).or_else(|| line.strip_prefix("\"\"\""));
        let first = opening.and_then(|text| text.trim().split(|c: char| !c.is_alphanumeric()).next());
        if let Some(word) = first.filter(|word| HEADLESS.contains(word)) {
            report(at + 1, format!("the comment begins with {word}: begin with a noun phrase or a verb"));
        }
        is_inside = comment.is_some();
    }
}

/// The banned phrases by their first word.
struct Phrases(HashMap<String, Vec<(Vec<String>, &'static Banned)>>);

impl Phrases {
    fn new() -> Self {
        let mut phrases: HashMap<String, Vec<_>> = HashMap::new();
        for banned in BANNED {
            for phrase in banned.words {
                let words = split(phrase);
                phrases.entry(words[0].clone()).or_default().push((words, banned));
            }
        }
        Self(phrases)
    }

    fn check(&self, text: &str, report: &mut dyn FnMut(usize, String)) {
        let mut words = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim_start().trim_start_matches(['/', '#', '!', '*']);
            words.extend(split(line).into_iter().map(|word| (at + 1, word)));
        }
        let is_at = |at: usize, phrase: &[String]| {
            words.len() >= at + phrase.len()
                && phrase.iter().zip(&words[at..]).all(|(word, (_, other))| word == other)
        };
        for (at, (line, word)) in words.iter().enumerate() {
            for (phrase, banned) in
                self.0.get(word).into_iter().flatten().filter(|(phrase, _)| is_at(at, phrase))
            {
                let is_allowed = banned.allowed.iter().map(|context| split(context)).any(|context| {
                    let last = context.len() - phrase.len();
                    (0..=last).any(|offset| offset <= at && is_at(at - offset, &context))
                });
                if !is_allowed {
                    report(*line, format!("\"{}\": say {}", phrase.join(" "), banned.say));
                }
            }
        }
    }
}

/// The words of a text in lower case, those of a name apart: `SlotWish` and `slot_wish` are two. Punctuation is a word.
fn split(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut last = ' ';
    for c in text.chars() {
        let joins =
            last.is_alphanumeric() && c.is_alphanumeric() && !(last.is_lowercase() && c.is_uppercase());
        if joins {
            words.last_mut().unwrap().extend(c.to_lowercase());
        } else if !c.is_whitespace() && c != '_' && c != '-' {
            words.push(c.to_lowercase().collect());
        }
        last = c;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_text(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        Phrases::new().check(text, &mut |line, message| found.push(format!("{line}: {message}")));
        check_first_words(text, &mut |line, message| found.push(format!("{line}: {message}")));
        found
    }

    #[test]
    fn banned_words_are_found_in_names_and_over_lines() {
        assert_eq!(in_text("let slot_wish = SlotWish::new();").len(), 2);
        assert_eq!(
            in_text("/// A worker that takes no\n/// more work."),
            ["1: \"no more\": say no longer, nothing else"]
        );
        assert!(in_text("/// At most, and no more than four wishbones of a third-party. Many.").is_empty());
        assert!(in_text("scene.render.film_transparent = True").is_empty());
        assert_eq!(in_text("# a film, transparent").len(), 1);
    }

    #[test]
    fn first_words_of_comments_are_checked() {
        assert_eq!(in_text("fn a() {}\n/// What it is.\nfn b() {}").len(), 1);
        assert_eq!(in_text("//! Which.\n\"\"\"Whether it is.\"\"\"").len(), 2);
        assert!(in_text("/// The place\n/// Where it is.\n/// Whereas.").is_empty());
    }

    #[test]
    fn public_types_are_read() {
        let text = "pub struct A<T>(T);\n    pub(crate) enum B {\npub fn c() {}\nstruct D;\npub(in a::b) type E = u8;\n\
                    pub struct $name;\n\
                    #[cfg(test)]\nmod tests {\npub struct F;\n}";
        assert_eq!(public_types(text).collect::<Vec<_>>(), [("A", 1), ("B", 2), ("E", 5)]);
    }
}
