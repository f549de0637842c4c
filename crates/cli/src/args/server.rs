//! `kiln server`.

use clap::{Args, Subcommand};

use kiln_types::TimeSpan;

use super::{FarmArgs, values::between};
use crate::settings::flags::{AvailabilityArgs, ListenArgs, RetentionArgs, ServerRenderArgs};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_long_help = "\
The key that clients and workers need is in farm.key in the data folder; commands on this machine find it there. \
Beyond this machine the farm speaks plain HTTP for now: --insecure says that you know.

Files that no job needs any more are removed after the durations that the --remove options name (0: at once; never), \
every hour and by `kiln server collect`. Frames are removed only after all of them were fetched.

--json prints a line of JSON for everything that happens: `started`, with the URL and the key's file, then the farm's \
events, and with --worker what `kiln worker --json` prints. Each has a `kind` and the time, `at_ms`.

Examples:
  kiln server
  kiln server --worker
  kiln server --listen 0.0.0.0:8765 --insecure --data /srv/kiln")]
pub struct ServerArgs {
    #[command(subcommand)]
    pub command: Option<ServerCommand>,
    #[command(flatten)]
    pub listen: ListenArgs,
    /// Render on this machine too.
    #[arg(long)]
    pub worker: bool,
    /// Listen beyond this machine although nothing is encrypted.
    #[arg(long)]
    pub insecure: bool,
    #[command(flatten)]
    pub render: ServerRenderArgs,
    /// The time after which a Blender that works without progress hangs, such as 90m [default: 24h].
    ///
    /// Without progress: no sample, no message, no byte. Its frame is tried again.
    #[arg(long, value_name = "DURATION", hide_short_help = true, value_parser = between("1s", "30d"))]
    pub stall: Option<TimeSpan>,
    #[command(flatten)]
    pub availability: AvailabilityArgs,
    #[command(flatten)]
    pub retention: RetentionArgs,
}

#[derive(Debug, Subcommand)]
pub enum ServerCommand {
    /// Remove the files now that no job needs any more.
    #[command(after_long_help = "The server does this every hour.\n\n\
        Examples:\n  kiln server collect --dry-run\n  kiln server collect --json")]
    Collect(CollectArgs),
}

#[derive(Debug, Args)]
pub struct CollectArgs {
    /// Only print what would be removed.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub farm: FarmArgs,
}
