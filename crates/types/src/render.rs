//! The settings of a render, which override those of the file.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::{
    ToSchema,
    openapi::{
        RefOr,
        schema::{ObjectBuilder, OneOfBuilder, Schema, Type},
    },
};

use crate::{BlenderName, Properties};

/// An enum with one text for each variant, the same on screen, on the wire and in the store.
macro_rules! text_enum {
    ($(#[doc = $doc:literal])* $name:ident {
        $($(#[doc = $vdoc:literal])* $(#[cfg($cfg:meta)])? $variant:ident = $text:literal),+ $(,)?
    }) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[doc = $vdoc])* $(#[cfg($cfg)])? $variant),+ }
        // By hand: the derived code also takes an object with the text as its key.
        $crate::ids::text_serde!($name);

        // By hand: the derive reads no names that a macro brings, and would list the variants' own.
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                let doc: Vec<&str> = [$($doc),*].iter().map(|line: &&str| line.trim()).collect();
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::Type::String)
                    .description(Some(doc.join(" ")))
                    .enum_values(Some(Self::documented()))
                    .into()
            }
        }

        impl utoipa::ToSchema for $name {}

        impl $name {
            pub const ALL: &'static [Self] = &[$($(#[cfg($cfg)])? Self::$variant),+];

            /// Texts of all builds.
            fn documented() -> impl Iterator<Item = &'static str> {
                const SOME_BUILDS: &[&str] = &[$($(#[cfg($cfg)] $text,)?)+];
                Self::ALL.iter().map(|one| one.as_str()).filter(|text| !SOME_BUILDS.contains(text))
            }

            /// The text on the command line and on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $($(#[cfg($cfg)])? Self::$variant => $text),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = String;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                Self::ALL.iter().copied().find(|v| v.as_str() == s).ok_or_else(|| {
                    let all: Vec<_> = Self::ALL.iter().map(|v| v.as_str()).collect();
                    format!("“{}” is none of {}", s.chars().take(40).collect::<String>(), all.join(", "))
                })
            }
        }
    };
}
pub(crate) use text_enum;

text_enum!(
    /// The device that renders: the processor, or the GPUs of one backend. A job is pinned to one device, because two
    /// devices never make the same picture.
    DeviceClass {
        Cpu = "cpu",
        Cuda = "cuda",
        Optix = "optix",
        Hip = "hip",
        Oneapi = "oneapi",
        Metal = "metal",
        /// The GPUs of a backend that is not chosen yet: the first worker that takes a task of the job pins the job to
        /// its backend. No process renders with it.
        Gpu = "gpu",
    }
);

impl DeviceClass {
    /// The backends of GPUs, the best first: with OptiX an NVIDIA card traces rays in hardware, with CUDA it does not.
    pub const BACKENDS: [Self; 5] = [Self::Optix, Self::Cuda, Self::Hip, Self::Oneapi, Self::Metal];

    pub fn is_gpu(self) -> bool {
        self != Self::Cpu
    }

    /// Returns the best backend of those that are available.
    pub fn best(is_there: impl Fn(Self) -> bool) -> Option<Self> {
        Self::BACKENDS.into_iter().find(|backend| is_there(*backend))
    }
}

text_enum!(
    /// The device that a person asks for.
    DeviceChoice {
        /// The device that the scene is set to: a GPU or the processor.
        Auto = "auto",
        Cpu = "cpu",
        /// The best available backend, whatever the setting of the scene.
        Gpu = "gpu",
        Optix = "optix",
        Cuda = "cuda",
        Hip = "hip",
        Oneapi = "oneapi",
        Metal = "metal",
    }
);

impl DeviceChoice {
    /// Returns the device for a scene that is set to GPU, or is not.
    pub fn resolve(self, scene_is_gpu: bool) -> DeviceClass {
        match self {
            Self::Auto if scene_is_gpu => DeviceClass::Gpu,
            Self::Auto | Self::Cpu => DeviceClass::Cpu,
            Self::Gpu => DeviceClass::Gpu,
            Self::Optix => DeviceClass::Optix,
            Self::Cuda => DeviceClass::Cuda,
            Self::Hip => DeviceClass::Hip,
            Self::Oneapi => DeviceClass::Oneapi,
            Self::Metal => DeviceClass::Metal,
        }
    }
}

#[expect(clippy::derivable_impls, reason = "the macro derives the same for every enum")]
impl Default for DeviceChoice {
    fn default() -> Self {
        Self::Auto
    }
}

impl From<DeviceClass> for DeviceChoice {
    fn from(device: DeviceClass) -> Self {
        match device {
            DeviceClass::Cpu => Self::Cpu,
            DeviceClass::Gpu => Self::Gpu,
            DeviceClass::Optix => Self::Optix,
            DeviceClass::Cuda => Self::Cuda,
            DeviceClass::Hip => Self::Hip,
            DeviceClass::Oneapi => Self::Oneapi,
            DeviceClass::Metal => Self::Metal,
        }
    }
}

text_enum!(
    /// The image formats that Kiln can decode, and therefore check.
    FileFormat {
        Png = "png",
        Jpeg = "jpeg",
        OpenExr = "exr",
        OpenExrMultilayer = "exr-multilayer",
        Tiff = "tiff",
        Webp = "webp",
        Bmp = "bmp",
        Targa = "tga",
        TargaRaw = "tga-raw",
        Hdr = "hdr",
        /// Silicon Graphics' format.
        Iris = "iris",
        Cineon = "cineon",
        Dpx = "dpx",
        /// JPEG 2000 in its container.
        Jp2 = "jp2",
        /// A bare codestream of JPEG 2000. Blender calls both `JPEG2000`, with a separate codec setting.
        J2c = "j2c",
    }
);

impl FileFormat {
    /// Blender's own name (`image_settings.file_format`).
    pub fn blender_name(self) -> &'static str {
        match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::OpenExr => "OPEN_EXR",
            Self::OpenExrMultilayer => "OPEN_EXR_MULTILAYER",
            Self::Tiff => "TIFF",
            Self::Webp => "WEBP",
            Self::Bmp => "BMP",
            Self::Targa => "TARGA",
            Self::TargaRaw => "TARGA_RAW",
            Self::Hdr => "HDR",
            Self::Iris => "IRIS",
            Self::Cineon => "CINEON",
            Self::Dpx => "DPX",
            Self::Jp2 | Self::J2c => "JPEG2000",
        }
    }

    /// Returns the format with this name of Blender; of the two JPEG 2000 formats Blender's default.
    pub fn from_blender_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|format| format.blender_name() == name)
    }

    /// The bits a channel that Blender can write in this format.
    pub fn depths(self) -> &'static [ColorDepth] {
        use ColorDepth::{Eight, Sixteen, Ten, ThirtyTwo, Twelve};
        match self {
            Self::Png | Self::Tiff => &[Eight, Sixteen],
            Self::OpenExr | Self::OpenExrMultilayer => &[Sixteen, ThirtyTwo],
            Self::Hdr => &[ThirtyTwo],
            Self::Jpeg | Self::Webp | Self::Bmp | Self::Targa | Self::TargaRaw | Self::Iris => &[Eight],
            Self::Cineon => &[Ten],
            Self::Dpx => &[Eight, Ten, Twelve, Sixteen],
            Self::Jp2 | Self::J2c => &[Eight, Twelve, Sixteen],
        }
    }
}

text_enum!(
    /// Bits a channel.
    ColorDepth { Eight = "8", Ten = "10", Twelve = "12", Sixteen = "16", ThirtyTwo = "32" }
);

text_enum!(
    /// The policy for the scripts and Python drivers inside a .blend.
    ScriptPolicy {
        /// No script runs; the job stops at a script that Blender would run, and names it.
        Stop = "stop",
        /// No script runs, and the job goes on.
        Block = "block",
        /// Scripts run.
        Trust = "trust",
    }
);

text_enum!(
    /// The policy for textures, libraries and other files that the scene needs and that are missing.
    ExternalFiles { Required = "required", MayBeMissing = "may-be-missing" }
);

text_enum!(
    /// The policy for simulations that are not baked: background Blender renders them without motion.
    Simulations {
        /// A step of the job bakes them first.
        Bake = "bake",
        /// The job stops.
        MustBeBaked = "must-be-baked",
        AsTheyAre = "as-they-are",
    }
);

/// The policies for problems that Blender ignores without a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Policy {
    pub scripts: ScriptPolicy,
    pub external_files: ExternalFiles,
    pub simulations: Simulations,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            scripts: ScriptPolicy::Stop,
            external_files: ExternalFiles::Required,
            simulations: Simulations::Bake,
        }
    }
}

/// The size of the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// Of the file's own size; 1 to 1000.
    Percent(u16),
    /// Width and height in pixels, at 100 percent; 4 to 65536 each, as Blender allows.
    Pixels { width: u32, height: u32 },
}

// By hand: the derive takes no bounds for the number of a variant.
impl utoipa::PartialSchema for Resolution {
    fn schema() -> RefOr<Schema> {
        let number = |least: i32, most: i32| {
            ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(least)).maximum(Some(most))
        };
        let one = |name: &str, schema: ObjectBuilder, description: &str| {
            let object = ObjectBuilder::new().schema_type(Type::Object).description(Some(description));
            object.property(name, schema).required(name)
        };
        let pixels = ObjectBuilder::new()
            .schema_type(Type::Object)
            .property("width", number(4, 65536))
            .required("width")
            .property("height", number(4, 65536))
            .required("height");
        OneOfBuilder::new()
            .description(Some("The size of the picture."))
            .item(one("percent", number(1, 1000), "Of the file's own size."))
            .item(one("pixels", pixels, "Width and height in pixels, at 100 percent, as Blender allows."))
            .into()
    }
}

impl ToSchema for Resolution {}

impl FromStr for Resolution {
    type Err = String;
    /// `50%` or `1920x1080`.
    fn from_str(s: &str) -> Result<Self, String> {
        let bad = || {
            format!("“{}” is no resolution; write 50% or 1920x1080", s.chars().take(40).collect::<String>())
        };
        let resolution = if let Some(percent) = s.strip_suffix('%') {
            Self::Percent(percent.parse().map_err(|_| bad())?)
        } else {
            let (width, height) = s.split_once('x').ok_or_else(bad)?;
            Self::Pixels {
                width: width.parse().map_err(|_| bad())?,
                height: height.parse().map_err(|_| bad())?,
            }
        };
        resolution.check()?;
        Ok(resolution)
    }
}

impl Resolution {
    /// Checks the limits of Blender.
    pub fn check(self) -> Result<(), String> {
        match self {
            Self::Percent(1..=1000) => Ok(()),
            Self::Percent(percent) => Err(format!("{percent}% is outside 1% to 1000%")),
            Self::Pixels { width: 4..=65536, height: 4..=65536 } => Ok(()),
            Self::Pixels { width, height } => Err(format!("{width}x{height} is outside 4x4 to 65536x65536")),
        }
    }
}

/// Overrides of the file's own settings; `None` keeps the setting of the file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct RenderSettings {
    #[schema(value_type = Option<BlenderName>)]
    pub scene: Option<String>,
    #[schema(value_type = Option<BlenderName>)]
    pub camera: Option<String>,
    /// Only this view layer renders.
    #[schema(value_type = Option<BlenderName>)]
    pub view_layer: Option<String>,
    /// Blender's name of the engine: `CYCLES`, `BLENDER_EEVEE`, `BLENDER_WORKBENCH`, ...
    #[schema(value_type = Option<BlenderName>)]
    pub engine: Option<String>,
    #[schema(minimum = 1, maximum = 16_777_216)]
    pub samples: Option<u32>,
    pub resolution: Option<Resolution>,
    pub format: Option<FileFormat>,
    pub depth: Option<ColorDepth>,
    /// Threads of each Blender; 0 lets Blender decide.
    #[schema(maximum = 1024)]
    pub threads: Option<u16>,
    /// Other settings, each by its path in Blender.
    #[serde(skip_serializing_if = "Properties::is_empty")]
    pub properties: Properties,
}

impl RenderSettings {
    pub fn check(&self) -> Result<(), String> {
        if let Some(resolution) = self.resolution {
            resolution.check()?;
        }
        if self.samples.is_some_and(|samples| !(1..=16_777_216).contains(&samples)) {
            return Err("samples must lie between 1 and 16777216".to_owned());
        }
        if self.threads.is_some_and(|threads| threads > 1024) {
            return Err("threads must lie between 0 and 1024".to_owned());
        }
        if let (Some(format), Some(depth)) = (self.format, self.depth)
            && !format.depths().contains(&depth)
        {
            let depths: Vec<_> = format.depths().iter().map(|depth| depth.as_str()).collect();
            return Err(format!("{format} has no {depth}-bit form; it can be {} bit", depths.join(" or ")));
        }
        for name in [&self.scene, &self.camera, &self.view_layer, &self.engine].into_iter().flatten() {
            if !BlenderName::is_valid(name) {
                return Err(format!("“{}” cannot be a name in Blender", name.escape_default()));
            }
        }
        self.properties.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolutions() {
        assert_eq!("50%".parse(), Ok(Resolution::Percent(50)));
        assert_eq!("1920x1080".parse(), Ok(Resolution::Pixels { width: 1920, height: 1080 }));
        for bad in ["", "50", "0%", "2000%", "3x3", "1920x", "-1x5", "99999x99999"] {
            assert!(bad.parse::<Resolution>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_device_is_what_is_asked_for_or_what_the_scene_says() {
        for (choice, of_gpu_scene, of_cpu_scene) in [
            (DeviceChoice::Auto, DeviceClass::Gpu, DeviceClass::Cpu),
            (DeviceChoice::Gpu, DeviceClass::Gpu, DeviceClass::Gpu),
            (DeviceChoice::Cpu, DeviceClass::Cpu, DeviceClass::Cpu),
            (DeviceChoice::Hip, DeviceClass::Hip, DeviceClass::Hip),
        ] {
            assert_eq!(
                (choice.resolve(true), choice.resolve(false)),
                (of_gpu_scene, of_cpu_scene),
                "{choice}"
            );
        }
        for device in DeviceClass::ALL {
            assert_eq!(DeviceChoice::from(*device).resolve(true), *device);
        }
        let there = [DeviceClass::Cuda, DeviceClass::Cpu, DeviceClass::Optix];
        assert_eq!(DeviceClass::best(|backend| there.contains(&backend)), Some(DeviceClass::Optix));
        assert_eq!(DeviceClass::best(|backend| backend == DeviceClass::Cpu), None);
    }

    #[test]
    fn depth_must_fit_the_format() {
        let settings = RenderSettings {
            format: Some(FileFormat::Jpeg),
            depth: Some(ColorDepth::Sixteen),
            ..RenderSettings::default()
        };
        assert_eq!(settings.check().unwrap_err(), "jpeg has no 16-bit form; it can be 8 bit");
    }
}
