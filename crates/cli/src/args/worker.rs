//! `kiln worker` and `kiln workers`.

use clap::{Args, Subcommand};

use kiln_types::{Name, ShortName};

use super::FarmArgs;
use crate::settings::flags::{AvailabilityArgs, WorkerSettingArgs};

#[derive(Debug, Args)]
#[command(after_long_help = "\
Ctrl-C stops the worker: frames that are not done are returned to the farm, and other workers render them. A second \
Ctrl-C stops it without waiting for anything.

--json prints a line of JSON for each event, with its time, `at_ms`, and its `kind`: blenders, no-blender, \
connected, disconnected, assigned, streaming, started, rendered, delivered, failed, returned, desired-state, unavailable, \
available or draining.

Examples:
  kiln worker --server http://10.0.0.5:8765 --key-file farm.key
  kiln worker --server http://10.0.0.5:8765 --key-file farm.key --slots 2 --threads 8 --name attic
  kiln worker --server http://10.0.0.5:8765 --key-file farm.key --sleep 'mon-fri 09:00-18:00' --yield --nice 10")]
pub struct WorkerArgs {
    #[command(flatten)]
    pub farm: FarmArgs,
    #[command(flatten)]
    pub machine: WorkerSettingArgs,
    #[command(flatten)]
    pub availability: AvailabilityArgs,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(
    after_long_help = "Examples:\n  kiln workers\n  kiln workers pause attic\n  kiln workers drain attic\n  kiln workers wake attic"
)]
pub struct WorkersArgs {
    #[command(subcommand)]
    pub command: Option<WorkersCommand>,
    #[command(flatten)]
    pub farm: FarmArgs,
}

#[derive(Debug, Args)]
pub struct OneWorker {
    /// The worker's name, as `kiln workers` prints it.
    pub name: Name,
    #[command(flatten)]
    pub farm: FarmArgs,
}

#[derive(Debug, Subcommand)]
pub enum WorkersCommand {
    /// List all workers that the farm knows.
    List {
        #[command(flatten)]
        farm: FarmArgs,
    },
    /// Give a worker no further work; it finishes the frames that it renders.
    Pause(OneWorker),
    /// Give a worker work again.
    Resume(OneWorker),
    /// Let a worker finish the frames that it renders, then leave the farm.
    Drain(OneWorker),
    /// Let a worker leave the farm at once; its frames go to others.
    Stop(OneWorker),
    /// End the quarantine of a worker that failed where others delivered.
    Unquarantine(OneWorker),
    /// Start the machine of a worker over the network (wake-on-LAN).
    Wake(OneWorker),
    /// Show everything about a worker.
    Show(OneWorker),
    /// Put a worker into pools, or take it out of them.
    Pool(PoolArgs),
    /// Forget a worker that is gone.
    Remove(OneWorker),
}

#[derive(Debug, Args)]
#[command(
    after_long_help = "Jobs ask for a pool with `kiln submit --pool NAME`; a worker that is in no pool takes the jobs that ask for none.\n\n\
    Examples:\n  kiln workers pool attic --add night --add big\n  kiln workers pool attic --remove night"
)]
#[group(required = true, multiple = true, id = "what", args = ["add", "remove"])]
pub struct PoolArgs {
    /// A pool to put it into; can be repeated.
    #[arg(long, value_name = "POOL")]
    pub add: Vec<ShortName>,
    /// A pool to take it out of; can be repeated.
    #[arg(long, value_name = "POOL")]
    pub remove: Vec<ShortName>,
    #[command(flatten)]
    pub worker: OneWorker,
}
