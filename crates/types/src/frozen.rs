//! Encodings that never change, because they identify finished frames in output folders (decision 019).
//!
//! Every text is written out here, so that names elsewhere can change. A new field is written only if it is not the
//! default, so that earlier encodings stay the same.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    BlenderSeries, BlobHash, ColorDepth, DeviceClass, ExternalFiles, FileFormat, Policy, RenderSettings,
    Resolution, ScriptPolicy, SessionKey, SessionSpec, Simulations,
};

/// A session, version 1: JSON of these fields in this order.
#[derive(Serialize)]
struct SessionV1<'a> {
    bundle: String,
    blend: &'a str,
    origin: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_name: Option<&'a str>,
    blender: String,
    device: &'static str,
    settings: SettingsV1<'a>,
    policy: PolicyV1,
    #[serde(skip_serializing_if = "Option::is_none")]
    ocio: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    addons: Vec<&'a str>,
}

#[derive(Serialize)]
struct SettingsV1<'a> {
    scene: Option<&'a str>,
    camera: Option<&'a str>,
    view_layer: Option<&'a str>,
    engine: Option<&'a str>,
    samples: Option<u32>,
    resolution: Option<ResolutionV1>,
    format: Option<&'static str>,
    depth: Option<&'static str>,
    threads: Option<u16>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    properties: BTreeMap<String, String>,
}

#[derive(Serialize)]
enum ResolutionV1 {
    #[serde(rename = "percent")]
    Percent(u16),
    #[serde(rename = "pixels")]
    Pixels { width: u32, height: u32 },
}

#[derive(Serialize)]
struct PolicyV1 {
    scripts: &'static str,
    external_files: &'static str,
    simulations: &'static str,
}

pub(crate) fn session_key(session: &SessionSpec) -> SessionKey {
    let settings = &session.settings;
    let Policy { scripts, external_files, simulations } = session.policy;
    let text = SessionV1 {
        bundle: session.bundle.to_string(),
        blend: session.blend.as_str(),
        origin: session.origin.as_deref(),
        file_name: session.file_name.as_deref(),
        blender: series(session.blender),
        device: device_word(session.device),
        settings: SettingsV1 {
            scene: settings.scene.as_deref(),
            camera: settings.camera.as_deref(),
            view_layer: settings.view_layer.as_deref(),
            engine: settings.engine.as_deref(),
            samples: settings.samples,
            resolution: settings.resolution.map(|resolution| match resolution {
                Resolution::Percent(percent) => ResolutionV1::Percent(percent),
                Resolution::Pixels { width, height } => ResolutionV1::Pixels { width, height },
            }),
            format: settings.format.map(format),
            depth: settings.depth.map(depth),
            threads: settings.threads,
            properties: (settings.properties.iter())
                .map(|(path, value)| (path.to_string(), value.to_string()))
                .collect(),
        },
        policy: PolicyV1 {
            scripts: self::scripts(scripts),
            external_files: self::external_files(external_files),
            simulations: self::simulations(simulations),
        },
        ocio: session.ocio.as_ref().map(|path| path.as_str()),
        addons: session.addons.iter().map(|path| path.as_str()).collect(),
    };
    // Cannot fail: texts and whole numbers.
    SessionKey(BlobHash::of(&serde_json::to_vec(&text).unwrap_or_default()))
}

/// The choices that change a picture and are not in the .blend, as names and texts. Defaults are left out, and so is the
/// device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Choices(BTreeMap<String, String>);

/// Choices whose default is the setting of the file.
const OF_THE_FILE: [&str; 9] =
    ["Blender", "camera", "depth", "engine", "format", "resolution", "samples", "scene", "view layer"];

/// The start of the name of a choice that is a property.
const SET: &str = "set ";

impl Choices {
    /// Returns the choices of a session, for a file of this series.
    pub fn of(session: &SessionSpec, written_by: BlenderSeries) -> Self {
        let RenderSettings {
            scene,
            camera,
            view_layer,
            engine,
            samples,
            resolution,
            format,
            depth,
            // The picture does not depend on the number of threads.
            threads: _,
            properties,
        } = &session.settings;
        let policy = session.policy;
        let default = Policy::default();
        let given = [
            ("scene", scene.clone()),
            ("camera", camera.clone()),
            ("view layer", view_layer.clone()),
            ("engine", engine.clone()),
            ("samples", samples.map(|samples| samples.to_string())),
            (
                "resolution",
                resolution.map(|resolution| match resolution {
                    Resolution::Percent(percent) => format!("{percent}%"),
                    Resolution::Pixels { width, height } => format!("{width}x{height}"),
                }),
            ),
            ("format", format.map(|format| self::format(format).to_owned())),
            ("depth", depth.map(|depth| self::depth(depth).to_owned())),
            ("Blender", (session.blender != written_by).then(|| series(session.blender))),
            ("scripts", (policy.scripts != default.scripts).then(|| scripts(policy.scripts).to_owned())),
            (
                "missing files",
                (policy.external_files != default.external_files).then(|| "allowed".to_owned()),
            ),
            (
                "simulations",
                // The other two policies make the same picture.
                (policy.simulations == Simulations::AsTheyAre)
                    .then(|| simulations(policy.simulations).to_owned()),
            ),
            ("colour configuration", session.ocio.as_ref().map(|_| "given".to_owned())),
            ("add-ons", (!session.addons.is_empty()).then(|| listed(session))),
        ];
        let given = given.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?)));
        let set = properties.iter().map(|(path, value)| (format!("{SET}{path}"), value.to_string()));
        Self(given.chain(set).collect())
    }

    /// Returns the differences in words: `samples: 128, now 1`.
    pub fn changes(&self, now: &Self) -> Vec<String> {
        let names: BTreeSet<&String> = self.0.keys().chain(now.0.keys()).collect();
        let text = |all: &Self, name: &String| {
            let is_the_files = OF_THE_FILE.contains(&name.as_str()) || name.starts_with(SET);
            let absent = if is_the_files { "the file's own" } else { "as by default" };
            all.0.get(name).cloned().unwrap_or_else(|| absent.to_owned())
        };
        let differ = names.into_iter().filter(|name| self.0.get(*name) != now.0.get(*name));
        differ.map(|name| format!("{name}: {}, now {}", text(self, name), text(now, name))).collect()
    }
}

fn listed(session: &SessionSpec) -> String {
    session.addons.iter().map(|path| path.file_name()).collect::<Vec<_>>().join(", ")
}

fn series(series: BlenderSeries) -> String {
    format!("{}.{}", series.major, series.minor)
}

/// The frozen word for a device.
pub fn device_word(device: DeviceClass) -> &'static str {
    match device {
        DeviceClass::Cpu => "cpu",
        DeviceClass::Cuda => "cuda",
        DeviceClass::Optix => "optix",
        DeviceClass::Hip => "hip",
        DeviceClass::Oneapi => "oneapi",
        DeviceClass::Metal => "metal",
        DeviceClass::Gpu => "gpu",
    }
}

fn format(format: FileFormat) -> &'static str {
    match format {
        FileFormat::Png => "png",
        FileFormat::Jpeg => "jpeg",
        FileFormat::OpenExr => "exr",
        FileFormat::OpenExrMultilayer => "exr-multilayer",
        FileFormat::Tiff => "tiff",
        FileFormat::Webp => "webp",
        FileFormat::Bmp => "bmp",
        FileFormat::Targa => "tga",
        FileFormat::TargaRaw => "tga-raw",
        FileFormat::Hdr => "hdr",
        FileFormat::Iris => "iris",
        FileFormat::Cineon => "cineon",
        FileFormat::Dpx => "dpx",
        FileFormat::Jp2 => "jp2",
        FileFormat::J2c => "j2c",
    }
}

fn depth(depth: ColorDepth) -> &'static str {
    match depth {
        ColorDepth::Eight => "8",
        ColorDepth::Ten => "10",
        ColorDepth::Twelve => "12",
        ColorDepth::Sixteen => "16",
        ColorDepth::ThirtyTwo => "32",
    }
}

fn scripts(policy: ScriptPolicy) -> &'static str {
    match policy {
        ScriptPolicy::Stop => "stop",
        ScriptPolicy::Block => "block",
        ScriptPolicy::Trust => "trust",
    }
}

fn external_files(policy: ExternalFiles) -> &'static str {
    match policy {
        ExternalFiles::Required => "required",
        ExternalFiles::MayBeMissing => "may-be-missing",
    }
}

fn simulations(policy: Simulations) -> &'static str {
    match policy {
        Simulations::Bake => "bake",
        Simulations::MustBeBaked => "must-be-baked",
        Simulations::AsTheyAre => "as-they-are",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BundleId, Properties, RelPath};

    /// One for each word, and one with everything.
    fn sessions() -> Vec<SessionSpec> {
        let base = SessionSpec {
            bundle: BundleId(BlobHash::of(b"bundle")),
            blend: RelPath::new("a.blend").unwrap(),
            origin: Some("/home/ann".to_owned()),
            file_name: None,
            blender: "4.5".parse().unwrap(),
            device: DeviceClass::Cpu,
            settings: RenderSettings::default(),
            policy: Policy::default(),
            ocio: None,
            addons: Vec::new(),
        };
        let on = DeviceClass::ALL.iter().map(|device| base.on(*device));
        let with = |settings: RenderSettings| SessionSpec { settings, ..base.clone() };
        let formats = FileFormat::ALL
            .iter()
            .take(10)
            .map(|format| with(RenderSettings { format: Some(*format), ..RenderSettings::default() }));
        // Those that there were when the keys were written, as with the formats above.
        let depths = [ColorDepth::Eight, ColorDepth::Sixteen, ColorDepth::ThirtyTwo]
            .map(|depth| with(RenderSettings { depth: Some(depth), ..RenderSettings::default() }));
        let policies = ScriptPolicy::ALL.iter().flat_map(|scripts| {
            ExternalFiles::ALL.iter().flat_map(move |external_files| {
                Simulations::ALL.iter().map(move |simulations| Policy {
                    scripts: *scripts,
                    external_files: *external_files,
                    simulations: *simulations,
                })
            })
        });
        let policies = policies.map(|policy| SessionSpec { policy, ..base.clone() });
        let full = SessionSpec {
            bundle: BundleId(BlobHash::of(b"other")),
            blend: RelPath::new("shots/é \"1\".blend").unwrap(),
            origin: None,
            blender: "5.10".parse().unwrap(),
            settings: RenderSettings {
                scene: Some("Scene".to_owned()),
                camera: Some("Cam\\era".to_owned()),
                view_layer: Some("ViewLayer".to_owned()),
                engine: Some("CYCLES".to_owned()),
                samples: Some(16_777_216),
                resolution: Some(Resolution::Pixels { width: 1920, height: 1080 }),
                format: Some(FileFormat::Png),
                depth: Some(ColorDepth::Sixteen),
                threads: Some(0),
                properties: Properties::default(),
            },
            ocio: Some(RelPath::new("_ocio/config.ocio").unwrap()),
            addons: ["_addons/a.py", "_addons/b"].map(|path| RelPath::new(path).unwrap()).to_vec(),
            ..base.clone()
        };
        let half =
            with(RenderSettings { resolution: Some(Resolution::Percent(50)), ..RenderSettings::default() });
        on.chain(formats).chain(depths).chain(policies).chain([full, half]).collect()
    }

    /// `keys.txt` was written by the last Kiln that took the key from the JSON of `SessionSpec`. Frames that lie in output
    /// folders are known by such keys: none may change.
    #[test]
    fn keys_are_those_of_the_first_version() {
        let keys: Vec<String> = sessions().iter().map(|session| session.key().0.to_string()).collect();
        assert_eq!(keys, include_str!("frozen/keys.txt").lines().collect::<Vec<_>>());
    }

    /// Each was taken from the program that could set properties first.
    #[test]
    fn a_property_is_part_of_the_key_and_of_the_choices() {
        let base = &sessions()[0];
        let with = |texts: &[&str]| {
            let properties =
                texts.iter().map(|text| text.parse::<crate::PropertySetting>().unwrap()).collect();
            SessionSpec { settings: RenderSettings { properties, ..base.settings.clone() }, ..base.clone() }
        };
        let given = [
            "cycles.max_bounces=4",
            "gravity=[0, 0.1, -3]",
            "render.stamp_note_text=\"é \\\"1\\\"\"",
            "render.film_transparent=true",
            "cycles.film_exposure=100000000000000000000",
        ];
        let keys = [with(&given[..1]).key(), with(&given).key()].map(|key| key.0.to_string());
        assert_eq!(
            keys,
            [
                "c40fe95f470449503c73199e6652f78713381fe53562a3befde5d7d7d0b7974c",
                "58331b3bae5deb76f057fc93c85f61e0f2b37d6f1bf380843137698040075110",
            ]
        );
        assert_eq!(with(&[]).key(), base.key());
        let of = |session: &SessionSpec| Choices::of(session, base.blender);
        let text = serde_json::to_string(&of(&with(&given))).unwrap();
        let expected = r#"{"set cycles.film_exposure":"100000000000000000000","set cycles.max_bounces":"4","set gravity":"[0, 0.1, -3]","set render.film_transparent":"true","set render.stamp_note_text":"\"é \\\"1\\\"\""}"#;
        assert_eq!(text, expected);
        let other = with(&["cycles.max_bounces=5"]);
        assert_eq!(of(&with(&given[..1])).changes(&of(&other)), ["set cycles.max_bounces: 4, now 5"]);
        assert_eq!(of(base).changes(&of(&other)), ["set cycles.max_bounces: the file's own, now 5"]);
    }

    #[test]
    fn choices_are_what_is_not_by_default_and_changes_are_named() {
        let sessions = sessions();
        let written_by = "4.5".parse().unwrap();
        let of = |session: &SessionSpec| Choices::of(session, written_by);
        let plain = of(&sessions[0]);
        assert_eq!(serde_json::to_string(&plain).unwrap(), "{}");
        assert_eq!(of(&sessions[1]), plain, "the device is kept apart");
        let mut threads = sessions[0].clone();
        threads.settings.threads = Some(3);
        assert_eq!(of(&threads), plain, "no picture depends on it");
        let full = of(&sessions[sessions.len() - 2]);
        let text = serde_json::to_string(&full).unwrap();
        let expected = r#"{"Blender":"5.10","add-ons":"a.py, b","camera":"Cam\\era","colour configuration":"given","depth":"16","engine":"CYCLES","format":"png","resolution":"1920x1080","samples":"16777216","scene":"Scene","view layer":"ViewLayer"}"#;
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<Choices>(&text).unwrap(), full);
        let half = of(&sessions[sessions.len() - 1]);
        assert_eq!(plain.changes(&half), ["resolution: the file's own, now 50%"]);
        assert_eq!(half.changes(&plain), ["resolution: 50%, now the file's own"]);
        assert_eq!(plain.changes(&plain), [""; 0]);
        let mut trusted = sessions[0].clone();
        trusted.policy.scripts = ScriptPolicy::Trust;
        assert_eq!(plain.changes(&of(&trusted)), ["scripts: as by default, now trust"]);
    }
}
