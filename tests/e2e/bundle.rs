//! `kiln bundle` with projects of real Blenders: bundles open on machines without the original.

use std::{fs, path::Path, process::Command};

use kiln_testkit::{Blender, assert_same_picture, fluid_blenders, picture, skip};
use serde_json::Value;

use crate::{
    elsewhere::{SCRIPT, assert_names_only, build, fetched},
    support::{Home, said},
};

/// Saves a copy of the .blend whose names are absolute, those of its libraries too.
const ABSOLUTE: &str = "import bpy, os, sys\n\
    blend, copy = sys.argv[-2:]\n\
    bpy.ops.wm.open_mainfile(filepath=blend)\n\
    bpy.ops.file.make_paths_absolute()\n\
    bpy.ops.wm.save_as_mainfile(filepath=copy, copy=True, relative_remap=False)\n\
    os._exit(0)\n";

fn make_absolute(blender: &Blender, blend: &Path, copy: &Path) {
    let mut command = Command::new(blender.program());
    match blender {
        Blender::Executable(_) => {
            command.args(["--background", "--factory-startup", "--python-expr", ABSOLUTE, "--"])
        }
        Blender::Module(_) => command.args(["-I", "-c", ABSOLUTE]),
    };
    let said = said(command.arg(blend).arg(copy).output().unwrap());
    assert!(copy.is_file(), "{}{}", said.out, said.err);
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_bundle_renders_where_the_original_is_not() {
    if fluid_blenders().is_empty() {
        return skip("no Blender here makes the files");
    }
    let home = Home::new();
    let work = home.work();
    let script = work.join("elsewhere.py");
    fs::write(&script, SCRIPT).unwrap();
    // Projects can only be built with the first one's volumes.
    let project = |index: usize| work.join(format!("Проект {index}"));
    for (index, blender) in fluid_blenders().iter().enumerate() {
        build(blender, &script, &project(index), &project(0), false);
        make_absolute(
            blender,
            &project(index).join("shots/all.blend"),
            &project(index).join("shots/abs.blend"),
        );
    }
    let mut made = Vec::new();
    for (index, blender) in fluid_blenders().into_iter().enumerate() {
        for name in ["all", "cut", "abs"] {
            let blend = project(index).join(format!("shots/{name}.blend"));
            let before = fs::read(&blend).unwrap();
            let (folder, zip) = (format!("{index}-{name}"), format!("{index}-{name}.zip"));
            let bundle = |out: &str| home.json(&["bundle", blend.to_str().unwrap(), "--out", out, "--json"]);
            let told = bundle(&folder);
            assert_eq!(bundle(&zip)["renamed"], told["renamed"]);
            assert_eq!(fs::read(&blend).unwrap(), before, "the artist's file stays as it is");
            let copies = told["renamed"].as_array().unwrap();
            let renamed: usize = copies.iter().map(|copy| copy["renamed"].as_array().unwrap().len()).sum();
            assert!(renamed >= if name == "abs" { 14 } else { 0 }, "{blender:?} {name}: {copies:?}");
            let status = Command::new("unzip")
                .args(["-q", &zip, "-d", &format!("{index}-{name}-unzipped")])
                .current_dir(&work)
                .status();
            assert!(status.unwrap().success());
            let at_home = work.join(format!("home-{index}-{name}-"));
            blender.render_cold(&blend, 2, Some(&at_home), false);
            made.push((
                blender.clone(),
                format!("{index}-{name}"),
                told["blend"].as_str().unwrap().to_owned(),
            ));
        }
    }
    for index in 0..fluid_blenders().len() {
        fs::rename(project(index), work.join(format!("gone {index}"))).unwrap();
    }
    for (blender, name, blend) in &made {
        for folder in [name.clone(), format!("{name}-unzipped")] {
            let away = work.join(format!("away-{folder}-"));
            blender.render_cold(&work.join(&folder).join(blend), 2, Some(&away), false);
            println!("{blender:?} {folder}");
            let home = work.join(format!("home-{name}-0002.png"));
            assert_same_picture(&work.join(format!("away-{folder}-0002.png")), &home);
        }
    }
    // And with Kiln, as any file; a library in a library lies elsewhere than the .blend here.
    let (_, name, blend) = &made[2];
    let blend = format!("{name}/{blend}");
    let rendered = home.json(&["render", &blend, "--frames", "2", "--out", "out", "--local", "--json"]);
    assert_eq!(rendered["landed"], 1);
    assert_names_only(&fetched(&work.join("out"), 2), &work.join(&blend), &home.data());
    assert!(names(&work).iter().all(|name| !name.starts_with(".kiln-bundle")), "{:?}", names(&work));
}

#[test]
fn the_same_files_make_the_same_zip_and_nothing_is_overwritten_unasked() {
    let home = Home::new();
    let work = home.work();
    let sample = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/sample.blend"));
    home.copy(sample, "shot.blend");
    for out in ["one.zip", "two.zip", "folder"] {
        assert_eq!(home.run(&["bundle", "shot.blend", "--out", out]).code, 0);
    }
    assert_eq!(fs::read(work.join("one.zip")).unwrap(), fs::read(work.join("two.zip")).unwrap());
    assert_eq!(names(&work.join("folder")), ["kiln-bundle.json", "shot.blend"]);
    for out in ["one.zip", "folder"] {
        home.run(&["bundle", "shot.blend", "--out", out]).refused(2, &["is there already", "--force"]);
        assert_eq!(home.run(&["bundle", "shot.blend", "--out", out, "--force"]).code, 0);
    }
    home.run(&["bundle", "shot.blend", "--out", ".", "--force"]).refused(2, &["did not make"]);
    home.run(&["bundle", "folder/shot.blend", "--out", "folder", "--force"]).refused(2, &["holds files"]);
    assert_eq!(names(&work), ["folder", "one.zip", "shot.blend", "two.zip"]);
}

#[test]
fn what_is_missing_is_told_by_name() {
    let home = Home::new();
    let blend = kiln_testkit::scene("missing_texture");
    let blend = blend.to_str().unwrap();
    let refused = home.run(&["bundle", blend, "--out", "out"]);
    assert_eq!((refused.code, refused.out.as_str()), (2, ""), "{}", refused.err);
    assert!(refused.err.contains("image ") && refused.err.contains("--allow-missing"), "{}", refused.err);
    let dry = home.run(&["bundle", blend, "--out", "out", "--dry-run", "--json"]);
    assert_eq!(dry.code, 2, "{}", dry.err);
    assert_eq!(names(&home.work()), Vec::<String>::new());
    let told = home.json(&["bundle", blend, "--out", "out", "--dry-run", "--allow-missing", "--json"]);
    assert_eq!(told["out"], Value::Null);
    assert_eq!(told["missing"].as_array().unwrap().len(), 1);
    assert_eq!(names(&home.work()), Vec::<String>::new());
    let told = home.json(&["bundle", blend, "--out", "out", "--allow-missing", "--json"]);
    let manifest = fs::read(home.work().join("out/kiln-bundle.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["missing"][0], told["missing"][0]["path"]);
}

#[test]
fn an_add_on_goes_along_where_it_is_trusted() {
    let home = Home::new();
    let work = home.work();
    let sample = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/sample.blend"));
    home.copy(sample, "shot.blend");
    let addon = "import bpy\nbl_info = {'name': 'Dusk', 'blender': (3, 0, 0), 'category': 'Render'}\n\
        @bpy.app.handlers.persistent\ndef darken(scene, *_):\n    scene.view_settings.exposure = -3\n\
        def register():\n    bpy.app.handlers.render_init.append(darken)\n\
        def unregister():\n    bpy.app.handlers.render_init.remove(darken)\n";
    fs::write(work.join("dusk.py"), addon).unwrap();
    let render = |out: &str, more: &[&str]| {
        let quick = ["--frames", "1", "--samples", "1", "--resolution", "5%", "--local", "--format", "png"];
        let args = [&["render", "shot.blend", "--out", out][..], &quick, more].concat();
        home.run(&args)
    };
    render("no", &["--addon", "dusk.py"]).refused(2, &["--trust"]);
    render("no", &["--addon", "shot.blend", "--trust"]).refused(2, &["neither a .py file"]);
    let brightness = |out: &str, more: &[&str]| {
        let said = render(out, more);
        assert_eq!(said.code, 0, "{}", said.err);
        let made = picture(&work.join(out).join("frames/vase_0001.png"));
        made.values.iter().map(|value| u64::from(*value)).sum::<u64>() * 100 / made.values.len() as u64
    };
    let (day, dusk) =
        (brightness("day", &["--trust"]), brightness("dusk", &["--trust", "--addon", "dusk.py"]));
    assert!(dusk * 3 < day * 2, "{dusk} {day}");

    let bundle = ["bundle", "shot.blend", "--addon", "dusk.py", "--out", "out"];
    assert_eq!(home.run(&bundle).code, 0);
    assert_eq!(names(&work.join("out/_addons")), ["dusk.py"]);
}
