//! The formats of cinema and of older machines: rendered, checked, delivered and resumed like any other.

use std::{fs, path::Path};

use kiln_image::{is_cut_off, same_pixels, seems_cut_off};
use kiln_testkit::{Blender, blender, scene};
use serde_json::json;

use crate::support::Home;

/// The files that a frame of the scene writes.
fn names(frame: i32) -> [String; 7] {
    ["shot_#.dpx", "cineon_#.cin", "iris_#.rgb", "dpx_#.dpx", "jp2_#.jp2", "j2c_#.j2c", "cinema_#.jp2"]
        .map(|name| name.replace('#', &format!("{frame:04}")))
}

/// Both folders have the same pixels of these frames.
#[track_caller]
fn assert_same_frames(ours: &Path, cold: &Path, frames: impl IntoIterator<Item = i32>) {
    for name in frames.into_iter().flat_map(names) {
        let difference = same_pixels(&ours.join(&name), &cold.join(&name));
        let difference = difference.unwrap_or_else(|fault| panic!("{name}: {fault}"));
        assert!(difference.is_none() && difference.total >= 64 * 36 * 3, "{name}: {difference:?}");
    }
}

/// Cuts a file in the middle.
#[track_caller]
fn cut(path: &Path) {
    let whole = fs::read(path).unwrap();
    fs::write(path, &whole[..whole.len() / 2]).unwrap();
    let told = [is_cut_off(fs::File::open(path).unwrap()), seems_cut_off(fs::File::open(path).unwrap())];
    assert!(told.into_iter().all(Result::unwrap), "{}", path.display());
}

#[test]
fn frames_in_old_formats_are_rendered_and_resumed() {
    let home = Home::new();
    let blend = home.copy(&scene("old_formats"), "shot.blend");
    let render = |more: &[&str]| {
        let args = ["render", "shot.blend", "--local", "--out", "out", "--frames", "1-8", "--json"];
        home.json(&[&args, more].concat())
    };
    let done = render(&[]);
    assert_eq!((&done["landed"], &done["kept"]), (&json!(8), &json!(0)), "{done}");
    let frames = home.work().join("out/frames");
    let cold = home.work().join("frames");
    for frame in [1, 8] {
        Blender::Executable(blender()).render_cold(&blend, frame, None, false);
    }
    assert_same_frames(&frames, &cold, [1, 8]);
    assert_eq!(render(&[])["kept"], 8);

    // In each frame another file is cut, and in the last one none.
    let before = home.work().join("before");
    kiln_testkit::copy_folder(&frames, &before);
    for (frame, index) in (1..8).zip(0..) {
        cut(&frames.join(&names(frame)[index]));
    }
    let done = render(&[]);
    assert_eq!((&done["landed"], &done["kept"]), (&json!(7), &json!(1)), "{done}");
    assert_same_frames(&frames, &before, 1..=8);
    assert_eq!(render(&[])["kept"], 8);
}

#[test]
fn a_farm_delivers_old_formats() {
    let home = Home::new();
    let blend = home.copy(&scene("old_formats"), "shot.blend");
    let server = home.server(&[]);
    let _worker = home.worker(&server.url, "one");
    let job = home.submit(&["shot.blend", "--frames", "2-3"]);
    let jp2 = home.submit(&["shot.blend", "--frames", "2", "--format", "jp2", "--depth", "8"]);
    home.completed(&job);
    home.completed(&jp2);
    Blender::Executable(blender()).render_cold(&blend, 2, None, false);
    let frames = home.fetch(&job, "fetched").join("frames");
    assert_same_frames(&frames, &home.work().join("frames"), [2]);
    let before = home.work().join("before");
    kiln_testkit::copy_folder(&frames, &before);
    names(2).iter().for_each(|name| cut(&frames.join(name)));
    assert_same_frames(&home.fetch(&job, "fetched").join("frames"), &before, [2, 3]);
    assert!(home.fetch(&jp2, "other").join("frames/shot_0002.jp2").is_file());
}
