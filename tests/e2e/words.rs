//! The words of the workspace, from type names to help texts: those of docs/glossary.md.

use std::{collections::BTreeSet, path::Path};

/// Crates and folders that still break the rules. Delete the name of one that is clean.
const UNFINISHED: &[&str] = &[];

#[test]
fn names_and_words_are_those_of_the_field() {
    let violations = kiln_testkit::word_violations(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")));
    let wrong: Vec<_> = violations.iter().filter(|v| !UNFINISHED.contains(&v.part.as_str())).collect();
    let list: Vec<String> = wrong.iter().map(|violation| format!("  {violation}")).collect();
    assert!(
        list.is_empty(),
        "{} names or words to change. The rules and the terms are in crates/testkit/src/words.rs; `cargo run -p \
         kiln-testkit --example words NAME` lists those of one crate. If a word is right in its context, add the \
         context there.\n{}",
        list.len(),
        list.join("\n")
    );
    let parts: BTreeSet<&str> = violations.iter().map(|violation| violation.part.as_str()).collect();
    let finished: Vec<_> = UNFINISHED.iter().filter(|part| !parts.contains(**part)).collect();
    assert!(finished.is_empty(), "clean now; take them off UNFINISHED: {finished:?}");
}
