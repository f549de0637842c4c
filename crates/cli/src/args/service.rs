//! `kiln service`.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, Subcommand};

use crate::service::ServiceRole;

#[derive(Debug, Subcommand)]
#[command(after_long_help = "Examples:\n  kiln service install server\n  \
    kiln service install worker -- --server http://10.0.0.5:8765 --key-file farm.key\n  kiln service status\n  \
    kiln service remove worker")]
pub enum ServiceCommand {
    /// Install a systemd service that starts a server or a worker at boot, and start it now.
    Install(Box<InstallArgs>),
    /// Stop a service and remove it; the data stays.
    Remove(RemoveArgs),
    /// Show the services that are installed on this machine, and whether they run.
    #[command(after_long_help = "Examples:\n  kiln service status\n  kiln service status --json")]
    Status,
}

/// The manager of a service: that of the user or that of the system.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct ScopeArgs {
    /// A service of yours: it runs as you, with your settings and your Blenders [default, except for root].
    #[arg(long, conflicts_with = "system")]
    pub user: bool,
    /// A service of the system, for machines that nobody logs in to; needs root [default for root].
    #[arg(long)]
    pub system: bool,
}

#[derive(Debug, Args)]
#[command(after_long_help = "\
The service starts `kiln server` or `kiln worker` with the arguments after `--`. Kiln makes paths in them absolute and \
keeps KILN_* variables that are set now; kiln.toml is read at each start. The same command again replaces the service.

A service of yours runs as you. It starts at boot because this command enables lingering for you (`loginctl \
enable-linger`). A service of the system runs as an account of its own, `kiln`, which cannot read home folders that are \
closed to others: its data is in /var/lib/kiln, its settings are in /etc/kiln/kiln.toml, and a key file is copied to \
/etc/kiln/farm.key. --run-as chooses another account.

A service that fails or is killed starts again after 5 seconds, and after up to 2 minutes if it fails repeatedly. One \
that was told to leave (`kiln workers stop NAME`) starts at the next boot. `journalctl --user --unit kiln-worker` prints \
its messages, without --user for a service of the system.

Examples:
  kiln service install server -- --worker
  kiln service install worker -- --server http://10.0.0.5:8765 --key-file farm.key --nice 10
  sudo kiln service install worker -- --server http://10.0.0.5:8765 --key-file farm.key
  sudo kiln service install server --data /srv/kiln -- --listen 10.0.0.5:8765 --insecure
  kiln service install worker --print")]
pub struct InstallArgs {
    /// The role of the service: `server` or `worker`.
    #[arg(value_name = "server|worker", hide_possible_values = true)]
    pub role: ServiceRole,
    #[command(flatten)]
    pub scope: ScopeArgs,
    /// Only print the unit, and change nothing.
    #[arg(long, visible_alias = "dry-run")]
    pub print: bool,
    /// The program to start [default: this one].
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,
    /// The account that a service of the system runs as [default: kiln, which is created].
    #[arg(long, value_name = "NAME", conflicts_with = "user")]
    pub run_as: Option<String>,
    /// Install into the system below this folder, such as an image; the service starts when that system boots.
    #[arg(long, value_name = "DIR", conflicts_with = "user", hide_short_help = true)]
    pub root: Option<PathBuf>,
    /// Arguments of `kiln server` or `kiln worker`.
    #[arg(last = true, value_name = "ARGUMENT")]
    pub arguments: Vec<OsString>,
}

#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  kiln service remove worker\n  sudo kiln service remove server")]
pub struct RemoveArgs {
    /// The service: `server` or `worker`.
    #[arg(value_name = "server|worker", hide_possible_values = true)]
    pub role: ServiceRole,
    #[command(flatten)]
    pub scope: ScopeArgs,
    /// Remove it from the system below this folder.
    #[arg(long, value_name = "DIR", conflicts_with = "user", hide_short_help = true)]
    pub root: Option<PathBuf>,
}
