//! `kiln server`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use kiln_server::Expires;

use super::FarmArgs;

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
    /// The address to listen on [env: KILN_LISTEN] [default: 127.0.0.1:8765].
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Render here too.
    #[arg(long)]
    pub worker: bool,
    /// Listen beyond this machine although nothing is encrypted.
    #[arg(long)]
    pub insecure: bool,
    /// With --worker: Blenders side by side [env: KILN_SLOTS].
    #[arg(long, value_name = "N", requires = "worker", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub slots: Option<u16>,
    /// With --worker: threads that a Blender uses; 0 lets Blender decide [env: KILN_THREADS].
    #[arg(long, value_name = "N", requires = "worker", value_parser = clap::value_parser!(u16).range(0..=1024))]
    pub threads: Option<u16>,
    /// With --worker: one more Blender [env: KILN_BLENDER].
    #[arg(long, value_name = "PATH", requires = "worker")]
    pub blender: Vec<PathBuf>,
    /// A frame whose Blender works and shows nothing for it (no sample, no message, no byte) for so long hangs, and is tried
    /// again: such as 90m [default: 24h].
    #[arg(long, value_name = "TIME", hide_short_help = true, value_parser = super::render::duration)]
    pub stall: Option<Duration>,
    #[command(flatten)]
    pub keep: KeepArgs,
    #[command(flatten)]
    pub wishes: super::WishArgs,
}

/// What goes when.
#[derive(Debug, Clone, Default, Args)]
pub struct KeepArgs {
    /// The files of a job, after the last job with them has ended [env: KILN_REMOVE_BUNDLES_AFTER] [default: 7d].
    #[arg(long, value_name = "TIME", hide_short_help = true)]
    pub remove_bundles_after: Option<Expires>,
    /// Frames, after all of a job's were fetched [env: KILN_REMOVE_OUTPUTS_AFTER] [default: 30d].
    #[arg(long, value_name = "TIME", hide_short_help = true)]
    pub remove_outputs_after: Option<Expires>,
    /// Logs, after the job has ended [env: KILN_REMOVE_LOGS_AFTER] [default: 90d].
    #[arg(long, value_name = "TIME", hide_short_help = true)]
    pub remove_logs_after: Option<Expires>,
    /// What happened at the farm [env: KILN_REMOVE_EVENTS_AFTER] [default: 30d].
    #[arg(long, value_name = "TIME", hide_short_help = true)]
    pub remove_events_after: Option<Expires>,
    /// Uploads that nobody goes on with [env: KILN_REMOVE_UPLOADS_AFTER] [default: 7d].
    #[arg(long, value_name = "TIME", hide_short_help = true)]
    pub remove_uploads_after: Option<Expires>,
    /// What a client asked for, or sent, and made no job of; a client that takes longer sends it again
    /// [env: KILN_REMOVE_PROMISED_AFTER] [default: 1d].
    #[arg(long, value_name = "TIME", hide_short_help = true)]
    pub remove_promised_after: Option<Expires>,
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
