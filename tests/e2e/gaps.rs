//! A picture that an image sequence lacks stops a job before it starts, if one of its frames shows it.

use std::fs;

use kiln_testkit::scene;

use crate::support::Home;

#[test]
fn a_gap_that_a_requested_frame_shows_stops_the_job_before_it_starts() {
    let home = Home::new();
    let from = scene("image_sequence");
    home.copy(&from, "shot.blend");
    fs::create_dir(home.work().join("seq")).unwrap();
    for frame in [1, 2, 4] {
        let name = format!("seq/tile_{frame:03}.png");
        fs::copy(from.with_file_name(&name), home.work().join(&name)).unwrap();
    }
    let named = ["seq/tile_001.png", "tile_003.png", "frame 3", "--allow-missing"];
    home.run(&["render", "shot.blend", "--frames", "1-4"]).refused(2, &named);
    // The scene has 8 frames: what of them is asked for counts.
    let said = home.run(&["bundle", "shot.blend", "--out", "made"]);
    assert_eq!(said.code, 2, "{}", said.err);
    assert!(said.err.contains("5 of its files are not there: tile_003.png of frame 3"), "{}", said.err);
    let found = home.json(&["inspect", "shot.blend", "--json"]);
    let absent = found["missing"][0]["absent"].as_array().unwrap();
    let names: Vec<&str> = absent.iter().map(|one| one["name"].as_str().unwrap()).collect();
    let all = ["tile_003.png", "tile_005.png", "tile_006.png", "tile_007.png", "tile_008.png"];
    assert_eq!(names, all);
    assert_eq!(absent[1]["frame"], 5);
    let text = String::from_utf8(home.kiln(&["inspect", "shot.blend"]).output().unwrap().stdout).unwrap();
    assert!(text.contains("missing: image //seq/tile_001.png (5 of its files are not there"), "{text}");
    assert!(!home.work().join("made").exists());
    assert_eq!(home.run(&["bundle", "shot.blend", "--out", "made", "--allow-missing"]).code, 0);
    for frame in [1, 2, 4] {
        assert!(
            home.work().join(format!("made/seq/tile_{frame:03}.png")).is_file(),
            "all that is there goes along"
        );
    }
    let said = home.run(&["render", "shot.blend", "--frames", "1-2,4", "--out", "out"]);
    assert_eq!(said.code, 0, "{}", said.err);
}
