//! The names that Blender gives pictures, predicted before a render.

use std::path::Path;

use kiln_blend::SceneInfo;
use kiln_types::{BlenderSeries, FileFormat, RelPath, RenderSettings, Resolution};

use crate::template::{BadTemplate, TemplateValue, expand, safe};

/// The parts of the name of a frame's main file.
#[derive(Debug, Clone, PartialEq)]
pub struct Naming {
    /// The output path in the .blend.
    pub pic: String,
    /// The folder of the .blend: output paths below it keep their place.
    pub origin: String,
    pub format: FileFormat,
    /// Blender adds the extension (`use_file_extension`).
    pub extension: bool,
    /// The scene writes a video, whose frames Kiln renders instead.
    pub is_video: bool,
    /// Suffixes of the views that are written to files of their own; empty if there is one picture.
    pub suffixes: Vec<String>,
    /// The values of braces in the path, if Blender replaces them.
    pub variables: Option<Variables>,
}

/// The values of Blender's path templates.
#[derive(Debug, Clone, PartialEq)]
pub struct Variables {
    /// The .blend's name, without its ending.
    blend_name: String,
    /// The folder of the .blend, with a slash at the end.
    blend_dir: String,
    scene_name: String,
    fps: f64,
    width: u32,
    height: u32,
    /// The cameras, each with its first frame.
    cameras: Vec<(i32, String)>,
    /// Blender knows all variables; 4.5 knows name, rate and size only.
    all: bool,
}

/// The inputs of a name besides the scene.
#[derive(Debug, Clone, Copy)]
pub struct NamedFor<'a> {
    /// The .blend on the artist's disk.
    pub blend: &'a Path,
    /// The Blender that wrote the file: braces of older files are not replaced, whichever Blender renders.
    pub written_by: BlenderSeries,
    /// The Blender that renders.
    pub blender: BlenderSeries,
    pub settings: &'a RenderSettings,
    pub format: FileFormat,
}

/// The first Blender with path templates, and the first with all variables.
const TEMPLATES: BlenderSeries = BlenderSeries { major: 4, minor: 5 };
const ALL_VARIABLES: BlenderSeries = BlenderSeries { major: 5, minor: 0 };

/// Extensions of pictures, which Blender replaces by the one of the format.
const PICTURES: &[&str] = &[
    ".png", ".tga", ".bmp", ".jpg", ".jpeg", ".sgi", ".rgb", ".rgba", ".tif", ".tiff", ".tx", ".jp2", ".j2c",
    ".hdr", ".dds", ".cin", ".dpx", ".exr", ".psd", ".pdd", ".psb", ".webp",
];

impl Variables {
    fn of(scene: &SceneInfo, named: &NamedFor<'_>) -> Self {
        let whole = |pixels: u32, percent: u32| pixels.saturating_mul(percent) / 100;
        let (width, height) = match named.settings.resolution {
            Some(Resolution::Pixels { width, height }) => (width, height),
            Some(Resolution::Percent(percent)) => {
                (whole(scene.width, percent.into()), whole(scene.height, percent.into()))
            }
            None => (whole(scene.width, scene.percent), whole(scene.height, scene.percent)),
        };
        let cameras = match &named.settings.camera {
            Some(camera) => vec![(i32::MIN, camera.clone())],
            None => cameras(scene),
        };
        let name = named.blend.file_stem().unwrap_or_default();
        let folder = named.blend.parent().unwrap_or(Path::new("/")).to_string_lossy();
        Self {
            blend_name: name.to_string_lossy().into_owned(),
            blend_dir: format!("{}/", folder.trim_end_matches('/')),
            scene_name: scene.name.clone(),
            fps: scene.fps,
            width,
            height,
            cameras,
            all: named.blender >= ALL_VARIABLES,
        }
    }

    fn get(&self, name: &str, frame: i32) -> Option<TemplateValue> {
        let text = |text: &str| Some(TemplateValue::Text(text.to_owned()));
        match name {
            "blend_name" => text(&self.blend_name),
            "fps" => Some(TemplateValue::Number(self.fps)),
            "resolution_x" => Some(TemplateValue::Whole(self.width)),
            "resolution_y" => Some(TemplateValue::Whole(self.height)),
            _ if !self.all => None,
            "blend_name_lib" => text(&self.blend_name),
            "blend_dir" | "blend_dir_lib" => text(&self.blend_dir),
            "scene_name" => text(&safe(&self.scene_name)),
            "camera_name" => {
                let camera = self.cameras.iter().rev().find(|(from, _)| *from <= frame);
                text(&safe(&camera.or(self.cameras.first())?.1))
            }
            _ => None,
        }
    }
}

/// Returns the cameras of the scene, each with its first frame.
fn cameras(scene: &SceneInfo) -> Vec<(i32, String)> {
    let mut cameras: Vec<(i32, String)> = Vec::new();
    for marker in &scene.camera_markers {
        // Of several markers at one frame, the first counts.
        if cameras.last().is_none_or(|(frame, _)| *frame != marker.frame) {
            cameras.push((marker.frame, marker.camera.clone()));
        }
    }
    if cameras.is_empty() {
        cameras.extend(scene.camera.iter().map(|camera| (i32::MIN, camera.clone())));
    }
    cameras
}

impl Naming {
    /// Returns the naming of a scene.
    pub fn of(scene: &SceneInfo, named: &NamedFor<'_>) -> Self {
        let apart = if scene.views_apart { scene.views.as_slice() } else { &[] };
        let templates = named.written_by >= TEMPLATES && named.blender >= TEMPLATES;
        Self {
            pic: scene.output_path.clone(),
            origin: named.blend.parent().unwrap_or(Path::new("/")).to_string_lossy().into_owned(),
            format: named.format,
            extension: scene.use_file_extension,
            is_video: scene.is_movie,
            suffixes: apart.iter().map(|view| view.suffix.clone()).collect(),
            variables: templates.then(|| Variables::of(scene, named)),
        }
    }

    /// Returns a sentence on why Blender would not write to the output path, if it would not.
    pub fn fault(&self, frame: i32) -> Option<String> {
        let why = self.expanded(frame).err()?;
        Some(format!(
            "Blender cannot write to the output path “{}”: {why}; correct it in Blender ({{{{ and }}}} stand for braces)",
            self.pic
        ))
    }

    /// Returns the names of the main files of a frame, below the output folder; none if no safe name is possible.
    ///
    /// Follows Blender (`BKE_image_path_from_imformat`): braces are replaced; `//` is the .blend's folder; the number replaces the
    /// last run of `#` in the file's name, or is added at the end with four digits; then the extension is added, or replaces that
    /// of another picture format; a view's suffix goes before the last dot. (Blender's `frame_path(view=...)` returns other names
    /// than are written.) Of a path outside the .blend's folder, only the file name is kept.
    pub fn frame(&self, frame: i32) -> Vec<RelPath> {
        let Ok(path) = self.expanded(frame) else { return Vec::new() };
        let numbered = with_number(&self.below(&path), frame);
        let name = if self.extension { with_extension(numbered, self.format) } else { numbered };
        let names: Vec<String> = if self.suffixes.is_empty() {
            vec![name]
        } else {
            self.suffixes.iter().map(|suffix| with_suffix(&name, suffix)).collect()
        };
        names.iter().filter_map(|name| RelPath::new(name).ok()).collect()
    }

    fn expanded(&self, frame: i32) -> Result<String, BadTemplate> {
        match &self.variables {
            Some(variables) => expand(&self.pic, |name| variables.get(name, frame)),
            None => Ok(self.pic.clone()),
        }
    }

    /// Returns the output path relative to the output folder, with its `#`.
    fn below(&self, path: &str) -> String {
        let path = path.replace('\\', "/");
        let home = format!("{}/", self.origin.trim_end_matches('/'));
        let inside = path.strip_prefix("//").or_else(|| path.strip_prefix(&home));
        let (folder, name) = split_name(inside.unwrap_or(&path));
        let mut parts: Vec<&str> = Vec::new();
        let mut stays = inside.is_some();
        for part in folder.split('/') {
            match part {
                "" | "." => {}
                // A path that leaves the folder counts as outside, even if it returns.
                ".." => stays &= parts.pop().is_some(),
                other => parts.push(other),
            }
        }
        let name = if matches!(name, "." | "..") { "" } else { name };
        let name = cleaned(name);
        let name = if self.is_video { without_video_ending(&name) } else { name };
        if stays && !parts.is_empty() { format!("{}/{name}", cleaned(&parts.join("/"))) } else { name }
    }
}

/// Removes control characters and a drive, like `clean` of `blender/kiln_host/places.py`.
fn cleaned(path: &str) -> String {
    let path: String = path.chars().filter(|c| !c.is_control()).collect();
    let has_drive = path.as_bytes().get(1) == Some(&b':') && path.as_bytes()[0].is_ascii_alphabetic();
    if has_drive { path[2..].to_owned() } else { path }
}

/// Makes room for the number of a frame in the name of a video: `shot.mp4` becomes `shot_`.
fn without_video_ending(name: &str) -> String {
    const VIDEOS: &[&str] = &[
        "avi", "flc", "mov", "movie", "mp4", "m4v", "m2v", "m2t", "m2ts", "mts", "ts", "mv", "avs", "wmv",
        "ogv", "ogg", "r3d", "dv", "mpeg", "mpg", "mpg2", "vob", "mkv", "flv", "divx", "xvid", "mxf", "webm",
        "gif",
    ];
    match name.rsplit_once('.') {
        Some((stem, ending)) if VIDEOS.contains(&ending.to_ascii_lowercase().as_str()) => format!("{stem}_"),
        _ => name.to_owned(),
    }
}

fn split_name(path: &str) -> (&str, &str) {
    path.split_at(path.rfind('/').map_or(0, |slash| slash + 1))
}

/// Puts in the number of a frame: `f_##` and 7 give `f_07`; -5 gives `f_-05`, as the sign does not count as a digit.
fn with_number(path: &str, frame: i32) -> String {
    let (folder, name) = split_name(path);
    let (before, digits, after) = match name.rfind('#') {
        None => (name, 4, ""),
        Some(last) => {
            let before = name[..last].trim_end_matches('#');
            (before, last + 1 - before.len(), &name[last + 1..])
        }
    };
    let sign = if frame < 0 { "-" } else { "" };
    format!("{folder}{before}{sign}{:0digits$}{after}", frame.unsigned_abs())
}

fn with_suffix(path: &str, suffix: &str) -> String {
    let (folder, name) = split_name(path);
    let (stem, rest) = name.split_at(name.rfind('.').unwrap_or(name.len()));
    format!("{folder}{stem}{suffix}{rest}")
}

fn with_extension(path: String, format: FileFormat) -> String {
    let (accepted, extension): (&[&str], &str) = match format {
        FileFormat::Png => (&[".png"], ".png"),
        FileFormat::Jpeg => (&[".jpg", ".jpeg"], ".jpg"),
        FileFormat::OpenExr | FileFormat::OpenExrMultilayer => (&[".exr"], ".exr"),
        FileFormat::Tiff => (&[".tif", ".tiff"], ".tif"),
        FileFormat::Webp => (&[".webp"], ".webp"),
        FileFormat::Bmp => (&[".bmp"], ".bmp"),
        FileFormat::Targa | FileFormat::TargaRaw => (&[".tga"], ".tga"),
        FileFormat::Hdr => (&[".hdr"], ".hdr"),
        FileFormat::Iris => (&[".rgb"], ".rgb"),
        FileFormat::Cineon => (&[".cin"], ".cin"),
        FileFormat::Dpx => (&[".dpx"], ".dpx"),
        FileFormat::Jp2 => (&[".jp2"], ".jp2"),
        FileFormat::J2c => (&[".j2c"], ".j2c"),
    };
    let lower = path.to_ascii_lowercase();
    if accepted.iter().any(|end| lower.ends_with(end)) {
        return path;
    }
    if PICTURES.iter().any(|end| lower.ends_with(end))
        && let Some(dot) = path.rfind('.')
    {
        return format!("{}{extension}", &path[..dot]);
    }
    format!("{}{extension}", path.trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(pic: &str, frame: i32) -> String {
        let naming = Naming {
            pic: pic.into(),
            origin: "/work/shots".into(),
            format: FileFormat::Png,
            extension: true,
            is_video: false,
            suffixes: vec![],
            variables: None,
        };
        naming.frame(frame).first().map(ToString::to_string).unwrap_or_default()
    }

    #[test]
    fn names_as_blender_gives_them() {
        assert_eq!(name("//render/f_####", 7), "render/f_0007.png");
        assert_eq!(name("//f_", -5), "f_-0005.png");
        assert_eq!(name("//f_##", 12345), "f_12345.png");
        assert_eq!(name("//a##_b###", 7), "a##_b007.png");
        assert_eq!(name("//f_##_x", 7), "f_07_x.png");
        assert_eq!(name("//#dir/f", 7), "#dir/f0007.png");
        assert_eq!(name("//f_#.png", 7), "f_7.png");
        assert_eq!(name("//f_#.PNG", 7), "f_7.PNG");
        assert_eq!(name("//f_#.jpg", 7), "f_7.png");
        assert_eq!(name("//v1.2_#", 7), "v1.2_7.png");
        assert_eq!(name("//render/", 7), "render/0007.png");
        assert_eq!(name("//x...", 7), "x...0007.png");
    }

    #[test]
    fn outside_the_blends_folder_only_the_name_stays() {
        assert_eq!(name("/tmp/", 1), "0001.png");
        assert_eq!(name("/tmp/f_", 1), "f_0001.png");
        assert_eq!(name("//../f_", 1), "f_0001.png");
        assert_eq!(name("/work/shots/deep/f_", 1), "deep/f_0001.png");
        assert_eq!(name("//a/../b/f_", 1), "b/f_0001.png");
        assert_eq!(name("//../shots/x/f_", 1), "f_0001.png");
        assert_eq!(name("C:\\render\\f_", 1), "f_0001.png");
        assert_eq!(name("//sub\\f_", 1), "sub/f_0001.png");
    }

    #[test]
    fn a_video_becomes_numbered_frames() {
        let naming = Naming {
            pic: "//out/shot.mp4".into(),
            origin: "/w".into(),
            format: FileFormat::Png,
            extension: true,
            is_video: true,
            suffixes: vec![],
            variables: None,
        };
        assert_eq!(naming.frame(3)[0].as_str(), "out/shot_0003.png");
    }

    #[test]
    fn views_and_extensions() {
        let naming = Naming {
            pic: "//a.b_####".into(),
            origin: "/w".into(),
            format: FileFormat::OpenExr,
            extension: false,
            is_video: false,
            suffixes: vec!["_L".into(), "_R".into()],
            variables: None,
        };
        let names: Vec<String> = naming.frame(3).iter().map(ToString::to_string).collect();
        assert_eq!(names, ["a_L.b_0003", "a_R.b_0003"]);
    }
}
