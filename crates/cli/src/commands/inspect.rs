//! `kiln inspect`.

use std::path::Path;

use kiln_blend::{ExternalFile, Inspection, SceneInfo};
use serde_json::json;

use super::Context;
use crate::exit::{Exit, Fault, Outcome};

pub fn run(context: &Context, file: &Path) -> Outcome<Exit> {
    let found = kiln_blend::dependencies(file).map_err(|error| Fault::bad_input(error.to_string()))?;
    let missing: Vec<_> = found
        .items
        .iter()
        .filter(|item| item.is_missing())
        .map(|item| json!({ "kind": item.file.kind, "path": item.file.path, "looked_for": item.place }))
        .collect();
    let broken: Vec<String> = found.broken.iter().map(ToString::to_string).collect();
    let value =
        json!({ "file": found.blend, "blend": found.inspection, "missing": missing, "broken": broken });
    context.output.result(&value, || {
        let mut text = describe(&found.inspection);
        for item in found.items.iter().filter(|item| item.is_missing()) {
            text.push_str(&format!(
                "missing: {} {} (looked for at {})\n",
                item.file.kind.noun(),
                item.file.path,
                item.place.display()
            ));
        }
        for why in &broken {
            text.push_str(&format!("library: {why}\n"));
        }
        text
    });
    Ok(Exit::Done)
}

fn describe(blend: &Inspection) -> String {
    let mut text = format!("Saved by Blender {}\n", blend.written_by.series());
    for scene in &blend.scenes {
        let active = if blend.active_scene.as_ref() == Some(&scene.name) { " (active)" } else { "" };
        text.push_str(&format!("\nScene {}{active}\n", scene.name));
        for (name, value) in lines(scene) {
            text.push_str(&format!("  {name:12}{value}\n"));
        }
    }
    if !blend.cameras.is_empty() {
        text.push_str(&format!("\nCameras: {}\n", blend.cameras.join(", ")));
    }
    let outside: Vec<&ExternalFile> = blend.external.iter().filter(|file| !file.packed).collect();
    if !outside.is_empty() {
        text.push_str(&format!("\nFiles outside the .blend: {}\n", outside.len()));
        for file in outside {
            text.push_str(&format!("  {} {}\n", file.kind.noun(), file.path));
        }
    }
    text.lines().map(crate::output::one_line).collect::<Vec<_>>().join("\n") + "\n"
}

fn lines(scene: &SceneInfo) -> Vec<(&'static str, String)> {
    let step = if scene.frame_step > 1 { format!("x{}", scene.frame_step) } else { String::new() };
    let percent = if scene.percent == 100 { String::new() } else { format!(" at {}%", scene.percent) };
    let depth = scene.depth.map_or_else(String::new, |depth| format!(", {depth} bit"));
    let film = if scene.is_movie { ", a film: Kiln renders it as frames" } else { "" };
    let layers: Vec<String> = scene
        .view_layers
        .iter()
        .map(|layer| if layer.renders { layer.name.clone() } else { format!("{} (off)", layer.name) })
        .collect();
    let mut lines = vec![
        ("Frames", format!("{}-{}{step} at {} frames/s", scene.frame_start, scene.frame_end, scene.fps)),
        ("Engine", scene.engine.clone()),
        ("Size", format!("{}x{}{percent}", scene.width, scene.height)),
        ("Camera", scene.camera.clone().unwrap_or_else(|| "none".to_owned())),
        ("View layers", layers.join(", ")),
        ("Output", format!("{} ({}{depth}{film})", scene.output_path, scene.format_name)),
    ];
    if let Some(samples) = scene.samples {
        lines.insert(2, ("Samples", samples.to_string()));
    }
    if scene.multiview {
        lines.push(("Views", "several".to_owned()));
    }
    lines
}
