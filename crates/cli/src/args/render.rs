//! `kiln render` and `kiln submit`.

use clap::{ArgGroup, Args};

use super::{FarmArgs, JobArgs};
use crate::settings::flags::{RenderHereArgs, SharedArgs};

#[derive(Debug, Args)]
#[command(after_long_help = "\
With no farm, a server and a worker run inside this command, and end with it. With a farm (a server on this \
machine, or one named by --server, KILN_SERVER or kiln.toml) the farm renders, and this machine with it.

A scene that is set to GPU renders on the GPUs of this machine, the best backend first (OptiX before CUDA), and on \
the CPU if there are none. A farm waits for a worker with a GPU; all frames then come from the backend of the first \
that takes one. --device cpu renders on processors instead.

The same command again continues: frames that were made from this scene with these settings are kept, and the others \
render on the same kind of device, even if the folder has moved. After an edit, frames of the earlier save are replaced; \
with other settings, Kiln asks first. No other file is overwritten without --existing.

Examples:
  kiln render shot.blend
  kiln render shot.blend --frames 1-10,20,30-40x2 --out ~/frames
  kiln render shot.blend --order coarse
  kiln render shot.blend --resolution 50% --samples 16 --format png --depth 16
  kiln render shot.blend --set cycles.max_bounces=4 --set render.film_transparent=true
  kiln render shot.blend --local --slots 1 --threads 4
  kiln render shot.blend --device cpu        on the processor, whatever the scene says
  kiln render shot.blend --device gpu        on GPUs, whatever the scene says
  kiln render shot.blend --scene Day --scene Night --camera Near --camera Far
  kiln render shot.blend --json | tail -n 1 | jq .report

Ctrl-C asks whether to detach from the job or to cancel it; without a terminal, a job inside this command is cancelled \
and a job on a farm goes on. `kiln help exit-codes` lists the exit codes.")]
#[command(group(ArgGroup::new("place").args(["local", "no_local"])))]
pub struct RenderArgs {
    #[command(flatten)]
    pub job: JobArgs,
    #[command(flatten)]
    pub farm: FarmArgs,
    /// Render on this machine only, even if there is a farm.
    #[arg(long, help_heading = "Farm", conflicts_with_all = ["server", "key", "key_file"])]
    pub local: bool,
    /// Let only the farm render, and not this machine.
    #[arg(long, help_heading = "Farm", hide_short_help = true)]
    pub no_local: bool,
    #[command(flatten)]
    pub here: RenderHereArgs,
    #[command(flatten)]
    pub shared: SharedArgs,
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
  kiln submit a.blend b.blend --out 'frames/{file}'
  kiln submit shot.blend --wait              waits, and fetches the frames as they finish
  kiln jobs wait 7                           attaches again, and ends with the job's exit code
  kiln jobs fetch 7                          fetches the frames to the folder that was chosen here")]
pub struct SubmitArgs {
    #[command(flatten)]
    pub job: JobArgs,
    #[command(flatten)]
    pub farm: FarmArgs,
    /// Wait for the end of the job, and fetch its frames.
    #[arg(long, help_heading = "Farm")]
    pub wait: bool,
    #[command(flatten)]
    pub shared: SharedArgs,
}
