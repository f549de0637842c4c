//! The variants of a submission (decision 027): their names, their folders, and the files that two of them would write.

use std::{
    borrow::Cow,
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use kiln_types::{BlobHash, RenderSettings};

use crate::{
    Prepared,
    template::{BadTemplate, TemplateValue, expand, safe},
};

/// The files, scenes, cameras and view layers of a submission. Each combination is a variant. An empty list of scenes,
/// cameras or view layers leaves the choice to the file.
#[derive(Debug, Clone, Default)]
pub struct VariantChoices {
    pub files: Vec<PathBuf>,
    pub scenes: Vec<String>,
    pub cameras: Vec<String>,
    pub view_layers: Vec<String>,
}

/// The most variants of a submission.
pub const MAX_VARIANTS: usize = 100;
/// The longest name of a variant in bytes.
const MAX_NAME: usize = 150;

#[derive(Debug, thiserror::Error)]
pub enum VariantError {
    #[error("no .blend is named")]
    NoFile,
    #[error("{what} {name} is named twice; name each once")]
    Repeated { what: &'static str, name: String },
    #[error(
        "these are {count} variants, and a submission has {MAX_VARIANTS} at most; submit them in several commands"
    )]
    TooMany { count: usize },
    #[error("{} is no output folder: {reason}", .out.display())]
    Pattern { out: PathBuf, reason: String },
    #[error(
        "the variants {first} and {second} would both write {}; remove the {{tokens}} from --out, or use one that \
         differs, such as {{variant}}",
        .file.display()
    )]
    SameFile { first: String, second: String, file: PathBuf },
}

/// One combination of a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variant {
    /// The index of the file among those of the submission.
    pub file: usize,
    pub scene: Option<String>,
    pub camera: Option<String>,
    pub view_layer: Option<String>,
    /// The name in the submission; `None` if it is the only one.
    pub name: Option<Arc<str>>,
}

/// Returns the choices of one kind: each that is named, or `None` for the file's own.
fn each(names: &[String]) -> Vec<Option<&String>> {
    if names.is_empty() { vec![None] } else { names.iter().map(Some).collect() }
}

impl VariantChoices {
    /// Returns every combination, with unique names.
    pub(crate) fn variants(&self) -> Result<Vec<Variant>, VariantError> {
        self.check()?;
        let mut all = Vec::new();
        for file in 0..self.files.len() {
            for scene in each(&self.scenes) {
                for camera in each(&self.cameras) {
                    for view_layer in each(&self.view_layers) {
                        let (scene, camera) = (scene.cloned(), camera.cloned());
                        all.push(Variant {
                            file,
                            scene,
                            camera,
                            view_layer: view_layer.cloned(),
                            name: None,
                        });
                    }
                }
            }
        }
        if all.len() > 1 {
            self.name(&mut all);
        }
        Ok(all)
    }

    fn check(&self) -> Result<(), VariantError> {
        let files: Vec<String> = self.files.iter().map(|file| file.display().to_string()).collect();
        let lists = [
            ("the file", &files),
            ("the scene", &self.scenes),
            ("the camera", &self.cameras),
            ("the view layer", &self.view_layers),
        ];
        for (what, names) in lists {
            let repeated = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name));
            if let Some((_, name)) = repeated {
                return Err(VariantError::Repeated { what, name: name.clone() });
            }
        }
        let count = lists.iter().map(|(_, names)| names.len().max(1)).product();
        match count {
            _ if self.files.is_empty() => Err(VariantError::NoFile),
            ..=MAX_VARIANTS => Ok(()),
            count => Err(VariantError::TooMany { count }),
        }
    }

    /// Names each variant by the choices that differ. Names that are equal on some file system, or too long, end in a part of the
    /// hash of the exact values.
    fn name(&self, variants: &mut [Variant]) {
        let named: Vec<(String, Vec<u8>)> = variants.iter().map(|variant| self.name_of(variant)).collect();
        let mut counts: HashMap<String, usize> = HashMap::new();
        for (name, _) in &named {
            *counts.entry(name.to_lowercase()).or_default() += 1;
        }
        for (variant, (mut name, exact)) in variants.iter_mut().zip(named) {
            let is_shared = counts.get(&name.to_lowercase()).is_some_and(|count| *count > 1);
            if is_shared || name.len() > MAX_NAME {
                name.truncate(name.floor_char_boundary(MAX_NAME));
                name = format!("{name}~{}", &BlobHash::of(&exact).to_string()[..6]);
            }
            variant.name = Some(name.into());
        }
    }

    /// Returns the name of a variant, and the exact values in it.
    fn name_of(&self, variant: &Variant) -> (String, Vec<u8>) {
        let (mut parts, mut exact) = (Vec::new(), Vec::new());
        if self.files.len() > 1 {
            let file = &self.files[variant.file];
            parts.push(file_name(&stem(file)));
            let whole = std::path::absolute(file);
            exact.extend_from_slice(whole.as_deref().unwrap_or(file).as_os_str().as_encoded_bytes());
        }
        for value in variant.distinct_choices(self) {
            exact.push(0);
            if let Some(value) = value {
                parts.push(file_name(value));
                exact.extend_from_slice(value.as_bytes());
            }
        }
        (parts.join("-"), exact)
    }
}

impl Variant {
    /// Returns the settings of the submission with those of the variant.
    pub fn settings(&self, all: &RenderSettings) -> RenderSettings {
        let or = |own: &Option<String>, all: &Option<String>| own.clone().or_else(|| all.clone());
        RenderSettings {
            scene: or(&self.scene, &all.scene),
            camera: or(&self.camera, &all.camera),
            view_layer: or(&self.view_layer, &all.view_layer),
            ..all.clone()
        }
    }

    /// Returns the scene, the camera and the view layer of the variant, each only if the submission names several.
    fn distinct_choices(&self, choices: &VariantChoices) -> [Option<&str>; 3] {
        let all = [
            (&choices.scenes, &self.scene),
            (&choices.cameras, &self.camera),
            (&choices.view_layers, &self.view_layer),
        ];
        all.map(|(named, value)| value.as_deref().filter(|_| named.len() > 1))
    }

    /// Returns the part of the job's name that differs between the variants of one file.
    pub fn label(&self, choices: &VariantChoices) -> Option<String> {
        let label = self.distinct_choices(choices).into_iter().flatten().collect::<Vec<_>>().join(", ");
        (!label.is_empty()).then_some(label)
    }

    /// Returns the output folder of the variant.
    pub fn folder(&self, out: Option<&Path>, prepared: &Prepared) -> Result<PathBuf, VariantError> {
        let pattern = out.map_or_else(|| prepared.folder.clone(), Path::to_owned);
        let below = |folder: PathBuf| match &self.name {
            Some(name) => folder.join(&**name),
            None => folder,
        };
        let Some(text) = out.and_then(Path::to_str).filter(|text| text.contains(['{', '}'])) else {
            return Ok(below(pattern));
        };
        let has_tokens = std::cell::Cell::new(false);
        let value = |token: &str| {
            has_tokens.set(true);
            Some(TemplateValue::Text(file_name(&self.token(token, prepared)?)))
        };
        let expanded = expand(text, value).map_err(|error| {
            let reason = match error {
                BadTemplate::Unknown(token) => format!(
                    "{token} has no value here; it may hold {{file}}, {{scene}}, {{camera}}, {{layer}} (one that is \
                     named, or the only one) and {{variant}}; {{{{ and }}}} are braces"
                ),
                other => other.to_string(),
            };
            VariantError::Pattern { out: pattern.clone(), reason }
        })?;
        Ok(if has_tokens.get() { expanded.into() } else { below(expanded.into()) })
    }

    fn token<'a>(&'a self, token: &str, prepared: &'a Prepared) -> Option<Cow<'a, str>> {
        let scene = &prepared.scene;
        let settings = &prepared.session.settings;
        match token {
            "variant" => Some(self.name.as_deref().map_or_else(|| prepared.shown_name(), Cow::from)),
            "file" => Some(prepared.shown_name()),
            "scene" => Some(Cow::from(&scene.name)),
            "camera" => settings.camera.as_deref().or(scene.camera.as_deref()).map(Cow::from),
            "layer" => {
                let only = scene.view_layers.first().filter(|_| scene.view_layers.len() == 1);
                settings.view_layer.as_deref().or(only.map(|layer| layer.name.as_str())).map(Cow::from)
            }
            _ => None,
        }
    }
}

fn stem(file: &Path) -> Cow<'_, str> {
    file.file_stem().unwrap_or_default().to_string_lossy()
}

/// Returns a name that is allowed for a file on any system, and not hidden.
fn file_name(name: &str) -> String {
    let mut name: String = safe(name).chars().map(|c| if c.is_control() { '_' } else { c }).collect();
    if name.is_empty() || name.starts_with('.') {
        name = format!("_{}", name.trim_start_matches('.'));
    }
    if name.ends_with(['.', ' ']) {
        name.push('_');
    }
    name
}

/// A variant and the folder that its frames go to.
pub(crate) struct PlacedVariant<'a> {
    pub name: &'a str,
    pub folder: &'a Path,
    pub prepared: &'a Prepared,
}

/// Refuses two variants of which frames would have the same path.
pub(crate) fn check_folders(variants: &[PlacedVariant<'_>]) -> Result<(), super::SubmissionError> {
    let folders: Vec<PathBuf> = variants.iter().map(|variant| real_path(variant.folder)).collect();
    let mut writers: HashMap<PathBuf, usize> = HashMap::new();
    for (at, variant) in variants.iter().enumerate() {
        let is_near = |(other, folder): (usize, &PathBuf)| {
            other != at && (folder.starts_with(&folders[at]) || folders[at].starts_with(folder))
        };
        // Variants in separate folders cannot collide, and may have a million frames.
        if !folders.iter().enumerate().any(is_near) {
            continue;
        }
        let naming = variant.prepared.naming()?;
        for name in variant.prepared.frames.iter().flat_map(|frame| naming.frame(frame)) {
            let file = folders[at].join(name.to_path());
            if let Some(other) = writers.insert(file.clone(), at).filter(|other| *other != at) {
                let (first, second) = (variants[other].name.to_owned(), variant.name.to_owned());
                return Err(VariantError::SameFile { first, second, file }.into());
            }
        }
    }
    Ok(())
}

/// Returns the path without links and `..`, as far as it exists.
fn real_path(folder: &Path) -> PathBuf {
    let path = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    for above in path.ancestors() {
        if let (Ok(real), Ok(rest)) = (above.canonicalize(), path.strip_prefix(above)) {
            return real.join(rest);
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    fn choices(files: &[&str], scenes: &[&str], cameras: &[&str], view_layers: &[&str]) -> VariantChoices {
        VariantChoices {
            files: files.iter().map(PathBuf::from).collect(),
            scenes: texts(scenes),
            cameras: texts(cameras),
            view_layers: texts(view_layers),
        }
    }

    fn names(choices: &VariantChoices) -> Vec<String> {
        let variants = choices.variants().unwrap();
        variants.iter().map(|variant| variant.name.as_deref().unwrap_or("-").to_owned()).collect()
    }

    #[test]
    fn variants_are_named_by_what_is_named_several_times() {
        let one = choices(&["/p/a.blend"], &["Day"], &["Near"], &[]);
        assert_eq!(names(&one), ["-"], "one combination has no name");
        assert_eq!(one.variants().unwrap()[0].label(&one), None);
        let four = choices(&["/p/a.blend"], &["Day", "Night"], &["Near", "Far"], &["Beauty"]);
        assert_eq!(names(&four), ["Day-Near", "Day-Far", "Night-Near", "Night-Far"]);
        assert_eq!(four.variants().unwrap()[3].label(&four).as_deref(), Some("Night, Far"));
        let files = choices(&["a.blend", "b.v2.blend"], &[], &[], &["Beauty", "Mist"]);
        assert_eq!(names(&files), ["a-Beauty", "a-Mist", "b.v2-Beauty", "b.v2-Mist"]);
    }

    #[test]
    fn names_are_those_that_files_can_have_and_no_two_are_equal() {
        let odd = choices(&["a.blend"], &[], &["../up", "", ".", "a/b ", "Eye\u{7f}", "ok"], &[]);
        let odd = names(&odd);
        assert_eq!((&*odd[0], &*odd[3], &*odd[4], &*odd[5]), ("__up", "a_b _", "Eye_", "ok"));
        assert!(odd[1].starts_with("_~") && odd[2].starts_with("_~") && odd[1] != odd[2], "{odd:?}");
        let alike = choices(&["a.blend"], &["Day", "day", "DAY ", "A/B", "A:B"], &[], &[]);
        let names = names(&alike);
        let mut unique: Vec<String> = names.iter().map(|name| name.to_lowercase()).collect();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), 5, "{names:?}");
        assert!(
            names[0].starts_with("Day~") && names[2] == "DAY _" && names[3].starts_with("A_B~"),
            "{names:?}"
        );
        let fewer = choices(&["a.blend"], &["day", "Day"], &[], &[]);
        assert_eq!(self::names(&fewer)[1], names[0], "whichever others there are");
        let long = choices(&["a.blend"], &[&"é".repeat(200), &"é".repeat(201)], &[], &[]);
        let long = self::names(&long);
        assert!(long[0] != long[1] && long[0].len() <= MAX_NAME + 7, "{long:?}");
    }

    #[test]
    fn a_choice_that_is_repeated_and_too_many_variants_are_refused() {
        let refused = |choices: VariantChoices| choices.variants().unwrap_err().to_string();
        assert!(
            refused(choices(&["a.blend"], &["Day", "Day"], &[], &[]))
                .contains("the scene Day is named twice")
        );
        assert!(refused(choices(&["a.blend", "a.blend"], &[], &[], &[])).contains("a.blend is named twice"));
        let many: Vec<String> = (0..11).map(|n| n.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(refused(choices(&["a.blend"], &many, &many, &[])).contains("121 variants"));
        assert!(matches!(VariantChoices::default().variants(), Err(VariantError::NoFile)));
    }
}
