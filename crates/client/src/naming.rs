//! How Blender names the picture of a frame, so that it is known before anything renders whether it is there.

use kiln_blend::SceneInfo;
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
    /// Whether the scene writes a film, whose frames Kiln renders instead.
    pub film: bool,
    /// Suffixes of the views that are written apart; empty where there is one picture.
    pub suffixes: Vec<String>,
}

/// Endings that Blender knows as those of pictures, and replaces by the right one.
const PICTURES: &[&str] = &[
    ".png", ".tga", ".bmp", ".jpg", ".jpeg", ".sgi", ".rgb", ".rgba", ".tif", ".tiff", ".tx", ".jp2", ".j2c",
    ".hdr", ".dds", ".cin", ".dpx", ".exr", ".psd", ".pdd", ".psb", ".webp",
];

impl Naming {
    /// What a scene's own settings say; `format` is that of the job.
    pub fn of(scene: &SceneInfo, origin: &str, format: FileFormat) -> Self {
        let apart = if scene.views_apart { scene.views.as_slice() } else { &[] };
        Self {
            pic: scene.output_path.clone(),
            origin: origin.to_owned(),
            format,
            extension: scene.use_file_extension,
            film: scene.is_movie,
            suffixes: apart.iter().map(|view| view.suffix.clone()).collect(),
        }
    }

    /// The names of the main files of a frame, below the output folder. Empty where no safe name can be told.
    ///
    /// As Blender does it (`BKE_image_path_from_imformat`): `//` is the .blend's folder; the number takes the
    /// place of the last run of `#` in the file's name, or stands at the end with four digits; then the extension
    /// is added, or replaces that of another picture format; a view's suffix goes before the last dot. (Its own
    /// `frame_path(view=...)` puts the suffix first, and so tells other names than are written.) A path outside the
    /// .blend's folder keeps its file name only.
    pub fn frame(&self, frame: i32) -> Vec<RelPath> {
        let numbered = with_number(&self.below(), frame);
        let name = if self.extension { with_extension(numbered, self.format) } else { numbered };
        let names: Vec<String> = if self.suffixes.is_empty() {
            vec![name]
        } else {
            self.suffixes.iter().map(|suffix| with_suffix(&name, suffix)).collect()
        };
        names.iter().filter_map(|name| RelPath::new(name).ok()).collect()
    }

    /// The output path relative to the output folder, still with its `#`.
    fn below(&self) -> String {
        let path = self.pic.replace('\\', "/");
        let home = format!("{}/", self.origin.trim_end_matches('/'));
        let inside = path.strip_prefix("//").or_else(|| path.strip_prefix(&home));
        let (folder, name) = split_name(inside.unwrap_or(&path));
        let mut parts: Vec<&str> = Vec::new();
        let mut stays = inside.is_some();
        for part in folder.split('/') {
            match part {
                "" | "." => {}
                // Up and out, even if it comes down in the same folder again.
                ".." => stays &= parts.pop().is_some(),
                other => parts.push(other),
            }
        }
        let name = if matches!(name, "." | "..") { "" } else { name };
        let name = if self.film { without_film(name) } else { name.to_owned() };
        if stays && !parts.is_empty() { format!("{}/{name}", parts.join("/")) } else { name }
    }
}

/// A film's name has no place for a frame's number: `shot.mp4` becomes `shot_`.
fn without_film(name: &str) -> String {
    const FILMS: &[&str] = &[
        "avi", "flc", "mov", "movie", "mp4", "m4v", "m2v", "m2t", "m2ts", "mts", "ts", "mv", "avs", "wmv",
        "ogv", "ogg", "r3d", "dv", "mpeg", "mpg", "mpg2", "vob", "mkv", "flv", "divx", "xvid", "mxf", "webm",
        "gif",
    ];
    match name.rsplit_once('.') {
        Some((stem, ending)) if FILMS.contains(&ending.to_ascii_lowercase().as_str()) => format!("{stem}_"),
        _ => name.to_owned(),
    }
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
            film: false,
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
        assert_eq!(name("//../shots/x/f_", 1), "f_0001.png");
        assert_eq!(name("C:\\render\\f_", 1), "f_0001.png");
        assert_eq!(name("//sub\\f_", 1), "sub/f_0001.png");
    }

    #[test]
    fn a_film_becomes_numbered_frames() {
        let naming = Naming {
            pic: "//out/shot.mp4".into(),
            origin: "/w".into(),
            format: FileFormat::Png,
            extension: true,
            film: true,
            suffixes: vec![],
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
            film: false,
            suffixes: vec!["_L".into(), "_R".into()],
        };
        let names: Vec<String> = naming.frame(3).iter().map(ToString::to_string).collect();
        assert_eq!(names, ["a_L.b_0003", "a_R.b_0003"]);
    }
}
