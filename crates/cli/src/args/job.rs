//! The options of a new job, for `kiln render` and `kiln submit`: one struct for each heading of their help, the common
//! options first. Only the common ones are in `-h`; the others are `hide_short_help`.

use std::{num::NonZeroU32, path::PathBuf};

use clap::Args;
use kiln_client::Existing;
use kiln_types::{
    BlenderSeries, ColorDepth, FileFormat, FrameSet, GpuUse, Order, Priority, PropertySetting, Resolution,
    ShortName, TimeSpan,
};

use super::{
    ExtrasArgs,
    values::{At, Counted, Jobs, between},
};
use crate::{
    settings::flags::{AccountArgs, DeviceArgs},
    size::ByteSize,
};

#[derive(Debug, Clone, Args)]
pub struct JobArgs {
    #[command(flatten)]
    pub frames: FrameArgs,
    #[command(flatten)]
    pub settings: SceneArgs,
    #[command(flatten)]
    pub policy: PolicyArgs,
    #[command(flatten)]
    pub scheduling: SchedulingArgs,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Frames", next_display_order = 1)]
pub struct FrameArgs {
    /// The .blend; several files make a job each.
    ///
    /// Several files, scenes, cameras or view layers are variants: each combination is a job, and its frames go to a folder
    /// of their own in the output folder.
    #[arg(display_order = 0, required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Frames, such as 1-250 or 1-10,20,30-40x2 [default: the scene's range].
    ///
    /// 50-41 counts down, -5--1 are negative frames, and 30-40x2 is every second frame from 30 to 40.
    #[arg(long, short, value_name = "RANGE", allow_hyphen_values = true)]
    pub frames: Option<FrameSet>,
    /// Only every Nth of the frames [default: the scene's own step; 1 with --frames].
    #[arg(long, value_name = "N", hide_short_help = true, value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub step: Option<u32>,
    /// Frame order: sequential, reverse, coarse or every-N [default: sequential].
    ///
    /// `coarse` renders the first, the last and the middle frame, then the middle of each gap: a mistake shows early.
    /// `every-N` renders every Nth frame, then those between.
    #[arg(long, value_name = "ORDER", default_value_t, hide_default_value = true)]
    pub order: Order,
    /// The folder for the frames [default: the folder of the .blend].
    ///
    /// It may contain {variant}, {file}, {scene}, {camera} and {layer}, as in frames/{scene}/{camera}; write {{ for a brace.
    /// If it has none of these, each of several variants gets a folder in it.
    #[arg(long, short, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// The treatment of existing files: replace, skip, overwrite or error.
    ///
    /// Without it, frames of the same scene and settings are kept, those of an earlier save of this .blend are replaced, and
    /// any other file stops the command. `replace` also replaces frames of this .blend that other settings made.
    #[arg(long, value_name = "CHOICE")]
    pub existing: Option<Existing>,
}

/// Overrides of the settings of the scene.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Settings")]
pub struct SceneArgs {
    /// The scene; can be repeated [default: the one that is active in the file].
    #[arg(long, value_name = "NAME")]
    pub scene: Vec<String>,
    /// The camera; can be repeated.
    #[arg(long, value_name = "NAME")]
    pub camera: Vec<String>,
    /// Render this view layer only; can be repeated.
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub view_layer: Vec<String>,
    /// CYCLES, BLENDER_EEVEE, BLENDER_WORKBENCH or another engine.
    #[arg(long, value_name = "ENGINE")]
    pub engine: Option<String>,
    /// Samples per pixel.
    #[arg(long, value_name = "N")]
    pub samples: Option<u32>,
    /// 50% of the size in the file, or 1920x1080 pixels.
    #[arg(long, value_name = "SIZE")]
    pub resolution: Option<Resolution>,
    /// png, jpeg, exr, exr-multilayer, tiff, webp or another.
    ///
    /// All: png, jpeg, exr, exr-multilayer, tiff, webp, bmp, tga, tga-raw, hdr, iris, cineon, dpx, jp2 and j2c.
    #[arg(long)]
    pub format: Option<FileFormat>,
    /// Bits per channel: 8, 10, 12, 16 or 32.
    #[arg(long, value_name = "BITS", hide_short_help = true)]
    pub depth: Option<ColorDepth>,
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Threads of each Blender; 0 lets Blender decide [default: Kiln decides].
    #[arg(long, value_name = "N", hide_short_help = true)]
    pub threads: Option<u16>,
    /// Another property, such as cycles.max_bounces=4; can be repeated.
    ///
    /// Any property of the scene, of its render settings or of its engine, by its path in Blender below the scene:
    /// --set render.film_transparent=true --set view_settings.view_transform=Standard --set 'gravity=[0, 0, -3]' --set
    /// 'gravity[2]=-3'. Blender checks it before the first frame.
    #[arg(long, value_name = "PATH=VALUE")]
    pub set: Vec<PropertySetting>,
    /// The series of Blender, such as 4.5 [default: the one that wrote the file].
    #[arg(long, value_name = "X.Y", hide_short_help = true)]
    pub blender_version: Option<BlenderSeries>,
    #[command(flatten)]
    pub extras: ExtrasArgs,
}

/// The conditions under which Kiln renders, and those under which a frame fails.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Policy")]
pub struct PolicyArgs {
    /// Render even if textures, libraries or other files are missing.
    #[arg(long)]
    pub allow_missing: bool,
    /// Run the scripts and Python drivers inside the file.
    #[arg(long, conflicts_with = "no_scripts")]
    pub trust: bool,
    /// Render without the scripts inside the file.
    #[arg(long, hide_short_help = true)]
    pub no_scripts: bool,
    /// Render simulations that are not baked without baking them: they do not move.
    #[arg(long, hide_short_help = true)]
    pub no_bake: bool,
    /// Refuse a scene with simulations that are not baked.
    #[arg(long, hide_short_help = true, conflicts_with = "no_bake")]
    pub only_baked: bool,
    /// Count a frame as failed if its picture is entirely black or transparent.
    #[arg(long, hide_short_help = true)]
    pub refuse_black: bool,
    /// The time limit of a frame, such as 90s, 15m or 1h30m.
    #[arg(long, value_name = "DURATION", hide_short_help = true, value_parser = between("1s", "30d"))]
    pub frame_time_limit: Option<TimeSpan>,
    /// The hang timeout: a frame is tried again if its Blender does nothing for this long [default: the farm's, 15m].
    #[arg(long, value_name = "DURATION", hide_short_help = true, value_parser = between("60s", "30d"))]
    pub hang: Option<TimeSpan>,
    /// Compare files below --shared folders by their bytes, not by size and time.
    ///
    /// For file servers that do not keep the times of files.
    #[arg(long, hide_short_help = true)]
    pub shared_hash: bool,
}

/// The scheduling options of a job, and its requirements.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Scheduling")]
pub struct SchedulingArgs {
    /// From 0 to 100; higher is earlier [default: 50].
    #[arg(long, value_name = "N")]
    pub priority: Option<Priority>,
    /// Start when these jobs are completed.
    #[arg(long, value_name = "JOB[,JOB]")]
    pub after: Option<Jobs>,
    /// Start at 22:00 (the next), 2026-12-24 or 2026-12-24T18:00.
    ///
    /// The time is that of this machine's clock. Other work can delay the start.
    #[arg(long, value_name = "TIME")]
    pub at: Option<At>,
    /// Pause the job at once; `kiln jobs resume` starts it.
    #[arg(long, hide_short_help = true)]
    pub hold: bool,
    /// Pause the job after the first N frames of its order.
    ///
    /// You can look at them before the others render: `kiln jobs resume` continues, and so does Enter in a `kiln render`.
    #[arg(long, value_name = "N", hide_short_help = true)]
    pub hold_after: Option<NonZeroU32>,
    /// Workers that the job may use at once [default: all].
    #[arg(long, value_name = "N", hide_short_help = true)]
    pub max_workers: Option<NonZeroU32>,
    /// Cores that each Blender claims, and its threads [default: an equal part of the worker's].
    #[arg(long, value_name = "N", hide_short_help = true, conflicts_with = "whole")]
    pub cores: Option<NonZeroU32>,
    /// Memory that each Blender claims, such as 16G [default: as much as earlier frames of the job took].
    #[arg(long, value_name = "SIZE", hide_short_help = true)]
    pub memory: Option<ByteSize>,
    /// GPUs that render a frame: each (one GPU per frame), all, or a number [default: each].
    #[arg(long, value_name = "N|all|each", hide_short_help = true)]
    pub gpus: Option<GpuUse>,
    /// Memory that each GPU must have, such as 8G.
    #[arg(long, value_name = "SIZE", hide_short_help = true)]
    pub gpu_memory: Option<ByteSize>,
    /// Reserve the whole machine: nothing else renders there meanwhile.
    #[arg(long, hide_short_help = true)]
    pub whole: bool,
    /// Use only workers with this tag; can be repeated.
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub tag: Vec<ShortName>,
    /// Use only workers of this pool.
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub pool: Option<ShortName>,
    /// Claim one, or N, of this limit of the farm (a licence) for each Blender; can be repeated.
    #[arg(long, value_name = "NAME[=N]", hide_short_help = true)]
    pub limit: Vec<Counted>,
    #[command(flatten)]
    pub account: AccountArgs,
}
