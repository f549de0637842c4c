//! `kiln server`.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

#[derive(Debug, Args)]
#[command(after_long_help = "\
The key that clients and workers need is in farm.key in the data folder; commands on this machine find it there. \
Beyond this machine the farm speaks plain HTTP for now: --insecure says that you know.

--json prints a line of JSON for everything that happens: `started`, with the URL and the key's file, then the farm's \
events, and with --worker what `kiln worker --json` prints. Each has a `kind` and the time, `at_ms`.

Examples:
  kiln server
  kiln server --worker
  kiln server --listen 0.0.0.0:8765 --insecure --data /srv/kiln")]
pub struct ServerArgs {
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
}
