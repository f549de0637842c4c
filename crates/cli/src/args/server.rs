//! `kiln server`.

use clap::{Args, Subcommand};

use kiln_types::TimeSpan;

use super::{FarmArgs, values::between};
use crate::settings::flags::{AvailabilityArgs, ListenArgs, RetentionArgs, ServerRenderArgs};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_long_help = "\
Clients and workers need the key in the file farm.key of the data folder; commands on this machine find it there. The \
farm speaks plain HTTP for now, also over the network; --insecure confirms that you know this.

Once an hour, and when `kiln server collect` asks for it, the server removes files that no job needs any longer, after \
the durations of the --remove options (0s: at once; or never). Frames are removed only after all of them were fetched.

--json prints a line of JSON for each event: `started`, with the URL and the key's file, then the farm's \
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
    /// Listen on the network although nothing is encrypted.
    #[arg(long)]
    pub insecure: bool,
    #[command(flatten)]
    pub render: ServerRenderArgs,
    /// The time after which a Blender that works without progress counts as hanging, such as 90m [default: 24h].
    ///
    /// Progress is a sample, a message or a byte of output. The frame is tried again.
    #[arg(long, value_name = "DURATION", hide_short_help = true, value_parser = between("1s", "30d"))]
    pub stall: Option<TimeSpan>,
    #[command(flatten)]
    pub availability: AvailabilityArgs,
    #[command(flatten)]
    pub retention: RetentionArgs,
}

#[derive(Debug, Subcommand)]
pub enum ServerCommand {
    /// Remove now what the server removes every hour: files that no job needs any longer.
    #[command(after_long_help = "Examples:\n  kiln server collect --dry-run\n  kiln server collect --json")]
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
