//! Forty rows of the fidelity table (docs/fidelity.md), by the oldest and the newest Blender; `scripts/fidelity` runs all.

use std::path::Path;

use kiln_fidelity::{Options, Verdict, can_hide, run};
use kiln_testkit::{blenders, skip, temp_dir};

/// The rows of each chapter that failed once, or that depend on a mechanism of Kiln.
const ROWS: &[&str] = &[
    "animation-keyframes-location-of-an-object",
    "animation-drivers-the-scene-s-frame-range",
    "animation-drivers-python-expression",
    "animation-drivers-python-expression-without-trust",
    "animation-shape-keys-value-driven",
    "animation-nla-influence-keyed",
    "animation-markers-bound-cameras",
    "animation-time-frame-map-old-and-new",
    "animation-armatures-itasc-simulation",
    "animation-armatures-rest-position-keyed",
    "objects-visibility-hide-render-keyed",
    "objects-instancing-collection-with-keys-inside-and-outside",
    "scenes-background-set-its-objects-move",
    "shading-images-sequence-in-the-project-auto-refresh-off",
    "shading-images-sequence-in-a-node-group-auto-refresh-off",
    "shading-images-movie-auto-refresh-off",
    "shading-images-udim-tiles-mapping-keyed",
    "shading-images-sequence-with-a-gap",
    "world-environment-texture-sequence-auto-refresh-off",
    "linking-view-layer-linked-collection-with-exclude-absolute-path-outside-of-the-project",
    "linking-view-layer-linked-collection-with-holdout-absolute-path-outside-of-the-project",
    "linking-view-layer-linked-collection-with-indirect-only-absolute-path-outside-of-the-project",
    "linking-overrides-a-pose-without-keys-absolute-path-outside-of-the-project",
    "linking-overrides-a-bone-constraint-of-the-shot-absolute-path-outside-of-the-project",
    "linking-drivers-here-reading-a-linked-object-absolute-path-outside-of-the-project",
    "rendering-metadata-burnt-into-the-picture-with-frame-and-range",
    "rendering-motion-blur-object",
    "rendering-output-png-rgba-16-bits",
    "rendering-passes-depth-in-a-multilayer-exr",
    "rendering-view-layers-two-with-other-collections-both-in-a-multilayer-exr",
    "grease-pencil-modifiers-time",
    "physics-particles-emissive-ones-that-die",
    "scripts-handlers-an-image-whose-pixels-are-drawn-for-each-frame",
    "scripts-handlers-the-scene-s-range-is-read-divided-by",
    "sequencer-strips-images-outside-of-the-project",
    "compositor-file-output-two-files-in-folders-of-their-own",
    "lights-instanced-lights-particles-that-come-and-go",
    "sequencer-blending-add-opacity-keyed",
    "physics-rigid-body-pushed-by-one-that-is-animated",
    "shading-images-sequence-outside-of-the-project-auto-refresh-off",
];

#[test]
fn forty_features_render_as_blender_renders_them() {
    if !can_hide() {
        skip("this machine lets no process hide a folder from another (unshare)");
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
