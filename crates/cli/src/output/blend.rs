//! A .blend in words.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
};

use kiln_blend::{
    Compression, Dependencies, Dependency, Inspection, MissingReport, OwnScope, SceneInfo, Simulation,
    SimulationKind,
};
use kiln_client::submission::RenderInputs;

use super::{Output, one_line, text::count};
use crate::size::ByteSize;

/// Objects of one kind that are named before the rest is counted.
const NAMED: usize = 4;

/// Describes a .blend: its scenes, then its files.
pub fn describe(found: &Dependencies, size: u64) -> String {
    let blend = &found.inspection;
    let name = found.blend.file_name().unwrap_or_default().to_string_lossy();
    let packed = match blend.compression {
        Compression::None => "",
        Compression::Gzip => ", compressed (gzip)",
        Compression::Zstd => ", compressed (zstd)",
    };
    let mut lines =
        vec![format!("{name}: saved by Blender {}, {}{packed}", blend.written_by.series(), ByteSize(size))];
    for scene in &blend.scenes {
        let active = if blend.active_scene.as_ref() == Some(&scene.name) { " (active)" } else { "" };
        lines.push(String::new());
        lines.push(format!("Scene {}{active}", scene.name));
        lines.extend(scene_lines(blend, scene).map(|(name, value)| format!("  {name:13}{value}")));
    }
    let nowhere: Vec<&Simulation> = blend.simulations.iter().filter(|one| one.scenes.is_empty()).collect();
    if !nowhere.is_empty() {
        lines.push(String::new());
        lines.push("Simulations in no scene".to_owned());
        lines.extend(simulations(&nowhere).into_iter().map(|line| format!("  {line}")));
    }
    if !blend.cameras.is_empty() {
        lines.push(String::new());
        lines.push(format!("Cameras: {}", blend.cameras.join(", ")));
    }
    lines.extend(file_lines(found));
    lines.iter().map(|line| one_line(line)).collect::<Vec<_>>().join("\n") + "\n"
}

/// Prints all missing files, grouped by the .blend that names them.
pub fn print_missing(output: Output, missing: &[(&Path, &str)]) {
    let mut left = missing.to_vec();
    while let Some((holder, _)) = left.first().copied() {
        let (these, others) = left.into_iter().partition::<Vec<_>, _>(|(other, _)| *other == holder);
        output.note(&one_line(&format!("missing in {}:", holder.display())));
        for (_, file) in these {
            output.note(&format!("  {}", one_line(file)));
        }
        left = others;
    }
}

/// Returns a few lines on the inputs of a render.
pub fn summary(inputs: &RenderInputs) -> Vec<String> {
    let samples =
        inputs.samples.map_or_else(String::new, |samples| format!(" at {}", count(samples, "sample")));
    let camera = match &inputs.camera {
        Some(name) if inputs.has_camera_markers => format!("camera {name} and markers"),
        Some(name) => format!("camera {name}"),
        None => "no camera".to_owned(),
    };
    let frames = count(inputs.frames.len(), "frame");
    let size = size(inputs.width, inputs.height, inputs.percent);
    let RenderInputs { blend, scene, frames: set, engine, blender, .. } = inputs;
    let lines = [
        format!("{blend}, scene {scene}: {frames} ({set}), {size}, {camera}"),
        format!(
            "{engine}{samples}; Blender {blender}; {} with {}",
            count(inputs.files as u64, "file"),
            ByteSize(inputs.bytes)
        ),
    ];
    lines.iter().map(|line| one_line(line)).collect()
}

fn size(width: u32, height: u32, percent: u32) -> String {
    // Blender rounds down.
    let part = |whole: u32| u64::from(whole) * u64::from(percent) / 100;
    if percent == 100 {
        format!("{width}x{height}")
    } else {
        format!("{}x{} ({percent}% of {width}x{height})", part(width), part(height))
    }
}

/// Describes the frames that a render without `--frames` makes, or says why there are none.
fn frames(scene: &SceneInfo) -> String {
    if let Err(error) = scene.frames(None) {
        return format!("none: {error}");
    }
    let step = if scene.frame_step > 1 { format!(", step {}", scene.frame_step) } else { String::new() };
    let fps = (scene.fps * 1000.0).round() / 1000.0;
    format!("{} to {}{step}, {fps} a second", scene.frame_start, scene.frame_end)
}

fn scene_lines(blend: &Inspection, scene: &SceneInfo) -> impl Iterator<Item = (&'static str, String)> {
    let depth = scene.depth.map_or_else(String::new, |depth| format!(", {depth} bit"));
    let video = if scene.is_movie { ", a video: Kiln renders it as frames" } else { "" };
    let samples = scene.samples.map_or_else(String::new, |samples| format!(", {}", count(samples, "sample")));
    let device = match scene.engine.as_str() {
        "CYCLES" if scene.is_on_gpu(None) => ", set to GPU",
        "CYCLES" => ", set to CPU",
        _ => "",
    };
    let markers =
        scene.camera_markers.iter().map(|marker| format!("{} from frame {}", marker.camera, marker.frame));
    let cameras: Vec<String> = scene.camera.iter().cloned().chain(markers).collect();
    let layers = scene
        .view_layers
        .iter()
        .map(|layer| if layer.renders { layer.name.clone() } else { format!("{} (off)", layer.name) });
    let mut lines = vec![
        ("Frames", frames(scene)),
        ("Engine", format!("{}{samples}{device}", scene.engine)),
        ("Size", size(scene.width, scene.height, scene.percent)),
        ("Camera", if cameras.is_empty() { "none".to_owned() } else { cameras.join(", ") }),
        ("View layers", layers.collect::<Vec<_>>().join(", ")),
        ("Output", format!("{} ({}{depth}{video})", scene.output_path, scene.format_name)),
    ];
    if let Some(border) = scene.border {
        let percent = |edge: f64| (edge * 100.0).round();
        let (from, to) = (percent(border.min_x), percent(border.max_x));
        let (low, high) = (percent(border.min_y), percent(border.max_y));
        let crop = if border.crop { ", cropped" } else { "" };
        lines.push(("Region", format!("{from} to {to}% across, {low} to {high}% up{crop}")));
    }
    if scene.multiview {
        let names: Vec<String> =
            scene.views.iter().map(|view| format!("{} ({})", view.name, view.suffix)).collect();
        let apart = if scene.views_apart { "a file each" } else { "in one file" };
        let names =
            if names.is_empty() { "one".to_owned() } else { format!("{}, {apart}", names.join(", ")) };
        lines.push(("Views", names));
    }
    let here: Vec<&Simulation> =
        blend.simulations.iter().filter(|one| one.scenes.contains(&scene.name)).collect();
    let name = |at| if at == 0 { "Simulations" } else { "" };
    lines.extend(simulations(&here).into_iter().enumerate().map(|(at, line)| (name(at), line)));
    lines.into_iter()
}

/// Returns a line for each kind and state of simulations: `cloth not baked (Flag, Curtain)`.
fn simulations(all: &[&Simulation]) -> Vec<String> {
    let mut groups: BTreeMap<(SimulationKind, &str), Vec<&str>> = BTreeMap::new();
    let mut lacking = Vec::new();
    for one in all {
        if !one.missing_frames.is_empty() {
            lacking.push(format!("{one} is baked, but lacks frames {}", one.missing_text()));
            continue;
        }
        let state = match (one.baked, one.needs_bake) {
            (true, _) => "baked",
            (false, true) => "not baked",
            (false, false) if one.kind == SimulationKind::Particles => "not baked, needs no bake",
            (false, false) => "not baked, does not render",
        };
        groups.entry((one.kind, state)).or_default().push(&one.owner);
    }
    let line = |((kind, state), owners): ((SimulationKind, &str), Vec<&str>)| {
        let more = owners.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let named: Vec<&str> = owners.into_iter().take(NAMED).collect();
        format!("{} {state} ({}{more})", kind.noun(), named.join(", "))
    };
    groups.into_iter().map(line).chain(lacking).collect()
}

/// Lists the files, grouped by the .blend that names them.
fn file_lines(found: &Dependencies) -> Vec<String> {
    let (packed, outside): (Vec<_>, Vec<_>) =
        found.items.iter().enumerate().partition(|(_, item)| item.file.packed);
    let own = found.inspection.own_scope();
    let MissingReport { missing, unused, gaps, .. } = found.find_missing(own.as_ref().map(OwnScope::scope));
    let mut lines = Vec::new();
    if !found.items.is_empty() {
        let missing = if missing.is_empty() { String::new() } else { format!(", {} missing", missing.len()) };
        let packed = if packed.is_empty() { String::new() } else { format!(", {} packed", packed.len()) };
        lines.push(String::new());
        lines.push(format!("Files outside the .blend: {}{missing}{packed}", outside.len()));
    }
    let mut holder: &Path = &found.blend;
    let indices: HashSet<usize> = unused.iter().map(|one| one.index).collect();
    for (index, item) in outside {
        if item.holder != holder {
            holder = &item.holder;
            lines.push(format!("  in {}", holder.display()));
        }
        lines.push(format!(
            "  {:20}{}{}",
            item.file.kind.noun(),
            item.file.path,
            state(item, indices.contains(&index))
        ));
    }
    lines.extend(missing.iter().map(|one| format!("missing: {one}")));
    lines.extend(found.items.iter().filter_map(Dependency::notice));
    lines.extend(unused.iter().map(|one| format!("not used: {one}")));
    lines.extend(gaps);
    lines.extend(found.linked.iter().map(|one| format!("not baked: {one}; only the library itself can be")));
    lines.extend(found.broken.iter().map(|why| format!("library: {why}")));
    lines
}

fn state(item: &Dependency, is_unused: bool) -> String {
    let several = item.file.kind.is_folder() || item.file.sequence || item.file.tiled;
    match item.files.len() {
        0 if is_unused => "  (not there, and not used)".to_owned(),
        0 if item.file.kind.is_required() => "  MISSING".to_owned(),
        0 => "  (not there, and not needed)".to_owned(),
        number if several => format!("  ({})", count(number as u64, "file")),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scene_that_ends_before_it_starts_shows_no_frames() {
        let scene = |first: i32, last: i32, step: i32| -> SceneInfo {
            serde_json::from_value(serde_json::json!({
                "name": "Shot", "frame_start": first, "frame_end": last, "frame_step": step, "fps": 23.976_024,
                "engine": "CYCLES", "device": "cpu", "width": 1920, "height": 1080, "percent": 100,
                "camera_markers": [], "view_layers": [], "output_path": "//", "format_name": "PNG",
                "is_movie": false, "multiview": false, "views": [], "views_apart": false, "use_file_extension": true,
            }))
            .unwrap()
        };
        assert_eq!(frames(&scene(1, 250, 1)), "1 to 250, 23.976 a second");
        assert_eq!(frames(&scene(1, 250, 2)), "1 to 250, step 2, 23.976 a second");
        let none = frames(&scene(250, 1, 1));
        assert!(none.starts_with("none: the scene “Shot” ends at frame 1, before it starts"), "{none}");
    }
}
