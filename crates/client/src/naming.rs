//! How Blender names the picture of a frame, so that it is known before anything renders whether it is there.

use kiln_types::{FileFormat, RelPath};

/// What the name of a frame's main file depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Naming {
    /// The output path as it stands in the .blend.
    pub pic: String,
    /// The folder of the .blend: output paths below it keep their place.
    pub origin: String,
    pub format: FileFormat,
    /// Whether Blender adds the extension (`use_file_extension`).
    pub extension: bool,
    /// Suffixes of the views that are written apart; empty where there is one picture.
    pub suffixes: Vec<String>,
}

/// Endings that Blender knows as those of pictures, and replaces by the right one.
const PICTURES: &[&str] = &[
    ".png", ".tga", ".bmp", ".jpg", ".jpeg", ".sgi", ".rgb", ".rgba", ".tif", ".tiff", ".tx", ".jp2", ".j2c",
    ".hdr", ".dds", ".cin", ".dpx", ".exr", ".psd", ".pdd", ".psb", ".webp",
];

impl Naming {
    /// The names of the main files of a frame, below the output folder. Empty where no safe name can be told.
    ///
    /// As Blender does it (`BKE_image_path_from_imformat`): `//` is the .blend's folder; the number takes the
    /// place of the last run of `#` in the file's name, or stands at the end with four digits; a view's suffix
    /// goes before the last dot; then the extension is added, or replaces that of another picture format. A path
    /// outside the .blend's folder keeps its file name only.
    pub fn frame(&self, frame: i32) -> Vec<RelPath> {
        let numbered = with_number(&self.below(), frame);
        let finish = |name: String| if self.extension { with_extension(name, self.format) } else { name };
        let names: Vec<String> = if self.suffixes.is_empty() {
            vec![finish(numbered)]
        } else {
            self.suffixes.iter().map(|suffix| finish(with_suffix(&numbered, suffix))).collect()
        };
        names.iter().filter_map(|name| RelPath::new(name).ok()).collect()
    }

    /// The output path relative to the output folder, still with its `#`.
    fn below(&self) -> String {
        let pic = self.pic.replace('\\', "/");
        let origin = normal(&self.origin);
        let absolute = match pic.strip_prefix("//") {
            Some(rest) => format!("{}/{rest}", self.origin),
            None => pic.clone(),
        };
        let is_folder = absolute.ends_with('/');
        let mut parts = normal(&absolute);
        // An empty last part: the number alone is the name.
        let name = if is_folder { String::new() } else { parts.pop().unwrap_or_default() };
        let folder = match parts.strip_prefix(&origin[..]) {
            Some(rest) if absolute.starts_with('/') || pic.starts_with("//") => rest.join("/"),
            _ => String::new(),
        };
        if folder.is_empty() { name } else { format!("{folder}/{name}") }
    }
}

/// The parts of a path without `.`, and with `..` resolved by name.
fn normal(path: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            other => parts.push(other.to_owned()),
        }
    }
    parts
}

fn split_name(path: &str) -> (&str, &str) {
    path.split_at(path.rfind('/').map_or(0, |slash| slash + 1))
}

/// `f_##` and 7 give `f_07`; -5 gives `f_-05`: the sign does not count as a digit.
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
            suffixes: vec![],
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
        assert_eq!(name("C:\\render\\f_", 1), "f_0001.png");
        assert_eq!(name("//sub\\f_", 1), "sub/f_0001.png");
    }

    #[test]
    fn views_and_extensions() {
        let naming = Naming {
            pic: "//a.b_####".into(),
            origin: "/w".into(),
            format: FileFormat::OpenExr,
            extension: false,
            suffixes: vec!["_L".into(), "_R".into()],
        };
        let names: Vec<String> = naming.frame(3).iter().map(ToString::to_string).collect();
        assert_eq!(names, ["a_L.b_0003", "a_R.b_0003"]);
    }
}
