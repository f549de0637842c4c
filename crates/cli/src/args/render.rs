//! `kiln render` and `kiln submit`.

use std::{path::PathBuf, time::Duration};

use clap::{ArgGroup, Args};
use kiln_client::Existing;
use kiln_types::{BlenderSeries, ColorDepth, FileFormat, FrameSet, Order, Resolution};

use super::{ExtrasArgs, FarmArgs, OrderArgs};
use crate::settings::flags::{JobSettingArgs, RenderHereArgs};

#[derive(Debug, Args)]
#[command(after_long_help = "\
With no farm, a server and a worker run inside this command and leave nothing behind. With a farm (a server on this \
machine, or one named by --server, KILN_SERVER or kiln.toml) the farm renders, and this machine with it.

A scene that is set to GPU renders on the GPUs of this machine, the best backend first (OptiX before CUDA), and on \
the CPU where there are none. A farm waits for a worker with a GPU; all frames then come from the backend of the first \
that takes one. --device cpu renders on processors instead.

The same command again continues: frames that this scene and these settings already made are kept, on the device that \
made them, wherever the folder is now. After an edit, frames of the earlier save are replaced; with other settings, Kiln \
asks first. No other file is overwritten without --existing.

Examples:
  kiln render shot.blend
  kiln render shot.blend --frames 1-10,20,30-40x2 --out ~/frames
  kiln render shot.blend --order coarse
  kiln render shot.blend --resolution 50% --samples 16 --format png --depth 16
  kiln render shot.blend --local --slots 1 --threads 4
  kiln render shot.blend --device cpu        on the processor, whatever the scene says
  kiln render shot.blend --device gpu        on GPUs, whatever the scene says
  kiln render shot.blend --json | tail -n 1 | jq .report

Ctrl-C asks whether to detach from the job or to cancel it; without a terminal a job inside this command is cancelled \
and a farm's job goes on. `kiln help exit-codes` lists the exit codes.")]
#[command(group(ArgGroup::new("place").args(["local", "no_local"])))]
pub struct RenderArgs {
    #[command(flatten)]
    pub job: JobArgs,
    #[command(flatten)]
    pub landing: WhereArgs,
    #[command(flatten)]
    pub farm: FarmArgs,
    /// Render on this machine only, whatever farm there is.
    #[arg(long, conflicts_with_all = ["server", "key", "key_file"])]
    pub local: bool,
    /// Leave the rendering to the farm.
    #[arg(long)]
    pub no_local: bool,
    #[command(flatten)]
    pub here: RenderHereArgs,
}

#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  kiln submit shot.blend --frames 1-250
  kiln submit shot.blend --order every-10    every tenth frame first, then the rest
  kiln submit shot.blend --priority 80 --at 22:00
  kiln submit comp.blend --after 7,8 --limit nuke
  kiln submit shot.blend --device gpu --gpus all --gpu-memory 12G
  kiln submit shot.blend --device optix      only on workers with OptiX
  kiln submit shot.blend --wait              stays, and fetches the frames as they finish
  kiln jobs wait 7                           attaches again, and ends with the job's exit code
  kiln jobs fetch 7                          brings the frames to the folder that was named here")]
pub struct SubmitArgs {
    #[command(flatten)]
    pub job: JobArgs,
    #[command(flatten)]
    pub landing: WhereArgs,
    #[command(flatten)]
    pub farm: FarmArgs,
    /// Stay until the job has ended, and fetch its frames.
    #[arg(long)]
    pub wait: bool,
}

/// Where frames land.
#[derive(Debug, Clone, Args)]
pub struct WhereArgs {
    /// The folder for the frames [default: the folder of the .blend].
    #[arg(long, short, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// What is done with files that are there: replace, skip, overwrite or error. Without it, frames of the same scene and
    /// settings are kept, those of an earlier save of this .blend are replaced, and any other file stops the command;
    /// `replace` also replaces frames of this .blend that other settings made.
    #[arg(long, value_name = "WHAT")]
    pub existing: Option<Existing>,
}

/// What is rendered, and how.
#[derive(Debug, Clone, Args)]
pub struct JobArgs {
    /// The .blend.
    pub file: PathBuf,
    /// Frames, such as 1-250, 1-10,20,30-40x2, 50-41 or -5--1 [default: the scene's range].
    #[arg(long, short, value_name = "RANGE", allow_hyphen_values = true)]
    pub frames: Option<FrameSet>,
    /// Only every Nth of the frames [default: the scene's own step; 1 with --frames].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub step: Option<u32>,
    /// In which order frames are handed out: sequential, reverse, coarse (the first, the last, the middle, then the
    /// middle of each gap: a mistake shows early) or every-N (every Nth, then those between).
    #[arg(long = "order", value_name = "ORDER", default_value_t)]
    pub frame_order: Order,
    /// The scene [default: the one that was active when the file was saved].
    #[arg(long, value_name = "NAME")]
    pub scene: Option<String>,
    /// The camera's name.
    #[arg(long, value_name = "NAME")]
    pub camera: Option<String>,
    /// Render this view layer only.
    #[arg(long, value_name = "NAME")]
    pub view_layer: Option<String>,
    /// CYCLES, BLENDER_EEVEE, BLENDER_WORKBENCH or another engine, by Blender's name.
    #[arg(long, value_name = "ENGINE")]
    pub engine: Option<String>,
    /// Samples a pixel.
    #[arg(long, value_name = "N")]
    pub samples: Option<u32>,
    /// A percentage of the file's own size, or pixels: 50% or 1920x1080.
    #[arg(long, value_name = "SIZE")]
    pub resolution: Option<Resolution>,
    /// png, jpeg, exr, exr-multilayer, tiff, webp, bmp, tga, tga-raw, hdr, iris, cineon, dpx, jp2 or j2c.
    #[arg(long)]
    pub format: Option<FileFormat>,
    /// Bits a channel: 8, 10, 12, 16 or 32.
    #[arg(long, value_name = "BITS")]
    pub depth: Option<ColorDepth>,
    /// Threads that a Blender uses; 0 lets Blender decide [default: Kiln decides].
    #[arg(long, value_name = "N")]
    pub threads: Option<u16>,
    #[command(flatten)]
    pub settings: JobSettingArgs,
    /// Render with this series of Blender, such as 4.5 [default: the one that wrote the file].
    #[arg(long, value_name = "X.Y")]
    pub blender_version: Option<BlenderSeries>,
    /// Render although textures, libraries or other files are missing.
    #[arg(long)]
    pub allow_missing: bool,
    /// Compare files below --shared folders by their bytes, not by size and time: for file servers that keep no times.
    #[arg(long)]
    pub shared_hash: bool,
    /// Run the scripts and Python drivers inside the file.
    #[arg(long, conflicts_with = "no_scripts")]
    pub trust: bool,
    /// Render without the scripts that the file would run.
    #[arg(long)]
    pub no_scripts: bool,
    /// Render simulations that are not baked as they are, without a bake before: they stand still.
    #[arg(long)]
    pub no_bake: bool,
    /// Refuse a scene with simulations that are not baked, instead of baking them first.
    #[arg(long, conflicts_with = "no_bake")]
    pub only_baked: bool,
    /// Count a frame whose picture is entirely black or transparent as failed.
    #[arg(long)]
    pub refuse_black: bool,
    /// How long a frame may take, such as 90s, 15m or 2h.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub frame_time_limit: Option<Duration>,
    #[command(flatten)]
    pub extras: ExtrasArgs,
    #[command(flatten)]
    pub order: OrderArgs,
}

/// A whole number of seconds, minutes or hours, at most 30 days.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let bad = || "write a time such as 90s, 15m or 2h".to_owned();
    let unit = text.chars().last().ok_or_else(bad)?;
    let (number, unit) = match unit {
        's' => (&text[..text.len() - 1], 1),
        'm' => (&text[..text.len() - 1], 60),
        'h' => (&text[..text.len() - 1], 3600),
        _ => (text, 1),
    };
    let seconds = number.parse::<u64>().map_err(|_| bad())?.checked_mul(unit).ok_or_else(bad)?;
    if (1..=30 * 24 * 3600).contains(&seconds) {
        Ok(Duration::from_secs(seconds))
    } else {
        Err("the time must lie between one second and 30 days".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        for bad in ["", "s", "0s", "-1s", "1d", "1.5h", "99999999h", "é"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
