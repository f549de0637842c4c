//! Prints the violations of the naming rules in the current folder: all, or those of one crate or folder.

use std::{collections::BTreeMap, path::Path};

fn main() {
    let violations = kiln_testkit::word_violations(Path::new("."));
    let Some(part) = std::env::args().nth(1) else {
        let mut counts = BTreeMap::new();
        for violation in &violations {
            *counts.entry(&violation.part).or_insert(0) += 1;
        }
        for (part, count) in counts {
            println!("{part}: {count}");
        }
        return;
    };
    for violation in violations.iter().filter(|violation| violation.part == part || part == "all") {
        println!("{violation}");
    }
}
