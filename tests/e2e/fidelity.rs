//! Forty rows of the fidelity table (docs/fidelity.md), by the oldest and the newest Blender; `scripts/fidelity` runs all.

use std::path::Path;

use kiln_fidelity::{Options, Verdict, can_hide, run};
use kiln_testkit::{blenders, temp_dir};

/// Of each chapter, the rows that went wrong once, and those whose mechanism is Kiln's own.
const ROWS: &[&str] = &["animation-keyframes-location-of-an-object"];

#[test]
fn forty_features_render_as_blender_renders_them() {
    if !can_hide() {
        println!("left out: this machine lets no process hide a folder from another (unshare)");
        return;
    }
    let cache = temp_dir();
    let blenders = blenders();
    let versions = blenders.len();
    let options = Options {
        kiln: env!("CARGO_BIN_EXE_kiln").into(),
        scripts: Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fidelity").canonicalize().unwrap(),
        cache: cache.path().to_owned(),
        blenders,
        only: ROWS.iter().map(|row| (*row).to_owned()).collect(),
        keep: false,
        known: false,
        check: false,
        texts: true,
        threads: 2,
    };
    let results = run(&options).unwrap();
    assert_eq!(results.len(), ROWS.len() * versions, "every row is there");
    let bad: Vec<_> = results.iter().filter(|known| !known.verdict.is_good()).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    let compared = results.iter().filter(|known| known.verdict == Verdict::Equal).count();
    assert!(compared * 10 >= results.len() * 8, "only {compared} of {} rows compare pictures", results.len());
}
