//! `kiln server`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::FarmArgs;
use crate::settings::flags::{KeepArgs, ListenArgs, ServerRenderArgs, WishArgs};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_long_help = "\
The key that clients and workers need is in farm.key in the data folder; commands on this machine find it there. \
Beyond this machine the farm speaks plain HTTP for now: --insecure says that you know.

Nothing is kept for ever: what no job needs any more goes, once an hour and with `kiln server collect`, after the \
times that the --remove flags name (7d, 24h, 30m; 0: at once; never). Frames go only after they were all fetched.

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
    /// Render here too.
    #[arg(long)]
    pub worker: bool,
    /// Listen beyond this machine although nothing is encrypted.
    #[arg(long)]
    pub insecure: bool,
    #[command(flatten)]
    pub render: ServerRenderArgs,
    /// A frame whose Blender works and shows nothing for it (no sample, no message, no byte) for so long hangs, and is tried
    /// again: such as 90m [default: 24h].
    #[arg(long, value_name = "TIME", hide_short_help = true, value_parser = super::render::duration)]
    pub stall: Option<Duration>,
    #[command(flatten)]
    pub keep: KeepArgs,
    #[command(flatten)]
    pub wishes: WishArgs,
}

#[derive(Debug, Subcommand)]
pub enum ServerCommand {
    /// Let go at once of what nobody needs any more.
    #[command(after_help = "The server does so every hour by itself.\n\n\
        Examples:\n  kiln server collect --dry-run\n  kiln server collect --json")]
    Collect(CollectArgs),
}

#[derive(Debug, Args)]
pub struct CollectArgs {
    /// Only say what would go.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub farm: FarmArgs,
}
