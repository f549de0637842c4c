//! The reference that frames are compared with: rendering by the script that the wheels need writes what
//! `blender -b FILE -f N` writes. Shown with the Blenders that have that command line: Debian's 3.4, and 4.3.

#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use kiln_testkit::{
    Blender, assert_same_picture, blender, blender_4_3, copy_folder, scene, skip_in_part, temp_dir,
};

fn same_by_script(scenes: &[&str]) {
    let mut blenders = vec![Blender::Executable(blender())];
    let new = blender_4_3();
    if new.is_none() {
        skip_in_part("KILN_TEST_TRIXIE names no root with Blender 4.3");
    }
    blenders.extend(new);
    for blender in &blenders {
        for name in scenes {
            // Files of File Output nodes are beside the copy.
            let folder = temp_dir();
            let [shell, script] = ["shell", "script"].map(|way| {
                let copy = folder.path().join(way);
                copy_folder(scene(name).parent().unwrap(), &copy);
                copy
            });
            let file = format!("{name}.blend");
            blender.render_cold(&shell.join(&file), 5, None, true);
            blender.render_still(&script.join(&file), 5, None, true);
            let made = files(&shell, "");
            println!("{blender:?} {name} {made:?}");
            assert_eq!(files(&script, ""), made, "{blender:?} {name}");
            let before = files(scene(name).parent().unwrap(), "");
            let is_picture = |file: &str| file.ends_with(".png") || file.ends_with(".exr");
            let pictures: Vec<_> =
                made.iter().filter(|file| !before.contains(file) && is_picture(file)).collect();
            assert!(!pictures.is_empty(), "{name}: {made:?}");
            for picture in pictures {
                assert_same_picture(&shell.join(picture), &script.join(picture));
            }
        }
    }
}

/// Among them a handler that writes to an animated object, which makes the way of rendering visible.
#[test]
fn the_script_renders_what_the_command_line_renders() {
    same_by_script(&["frame_range", "file_outputs", "particles"]);
}

#[test]
#[ignore = "takes a minute: the other scenes, when cold.py or a scene changes"]
fn the_script_renders_every_scene_as_the_command_line_does() {
    same_by_script(&[
        "basic",
        "image_sequence",
        "drivers",
        "python_driver",
        "script",
        "talks",
        "script_error",
        "motion_blur",
        "stereo",
        "dotted_stereo",
        "side_by_side",
        "scaled_output",
        "rigid_body",
        "waves",
        "multilayer",
    ]);
}

fn files(folder: &Path, prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.path().is_dir() {
            found.extend(files(&entry.path(), &format!("{name}/")));
        } else {
            found.push(name);
        }
    }
    found.sort();
    found
}
