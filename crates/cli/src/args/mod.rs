//! The commands and options of the command line: types and help texts only.

mod blender;
mod bundle;
mod job;
mod jobs;
mod render;
mod server;
mod service;
mod shares;
mod top;
mod values;
mod worker;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::settings::flags::DataArgs;
pub use crate::settings::flags::FarmArgs;
pub use blender::BlenderCommand;
pub use bundle::BundleArgs;
pub use job::JobArgs;
pub use jobs::{FetchArgs, JobsArgs, JobsCommand, ListArgs, LogsArgs, SomeJobs};
pub use render::{RenderArgs, SubmitArgs};
pub use server::{CollectArgs, ServerArgs, ServerCommand};
pub use service::{InstallArgs, RemoveArgs, ScopeArgs, ServiceCommand};
pub use shares::{LimitsArgs, LimitsCommand, SetShareArgs, SharesArgs, SharesCommand};
pub use top::TopArgs;
pub use values::{At, Counted, Jobs, OrNone};
pub use worker::{OneWorker, PoolArgs, WorkerArgs, WorkersArgs, WorkersCommand};

const OVERVIEW: &str = "\
Examples:
  kiln render shot.blend                     renders here, or on your farm
  kiln server --worker                       a farm that others can join, and a first worker in it
  kiln worker --server http://10.0.0.5:8765  another machine joins
  kiln service install worker                the same, also after every reboot
  kiln submit shot.blend --frames 1-250      leaves a job with the farm
  kiln jobs                                  what the farm is doing
  kiln top                                   the same, live

DURATION is a length of time in whole seconds, the same in every option, KILN_* variable and kiln.toml: 90s, 30m, 1h30m, 7d, 2w
or several of them, such as 1d 12h. SIZE is a number of bytes: 500M, 20G or 2T.

`kiln COMMAND --help` explains a command; `kiln help exit-codes` lists the exit codes.";

/// Turns the machines you own into one Blender render farm.
#[derive(Debug, Parser)]
#[command(name = "kiln", version, after_help = "`kiln --help` has examples.", after_long_help = OVERVIEW, disable_help_subcommand = true, disable_help_flag = true)]
#[command(max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    pub global: GlobalArgs,
    #[command(subcommand)]
    pub command: Option<KilnCommand>,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global")]
pub struct GlobalArgs {
    /// Print JSON on standard output, and everything else on standard error.
    ///
    /// One document, or a line for each event where the output is a stream.
    #[arg(long, global = true)]
    pub json: bool,
    /// Print errors and results only.
    #[arg(long, short, global = true, hide_short_help = true, conflicts_with = "json")]
    pub quiet: bool,
    /// Log more on standard error; -vv logs everything.
    #[arg(long, short, global = true, hide_short_help = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Print help; `--help` explains every option, with examples.
    #[arg(long, short, global = true, action = clap::ArgAction::Help)]
    pub help: Option<bool>,
    #[command(flatten)]
    pub data: DataArgs,
}

/// Files of a bundle that the .blend does not name.
#[derive(Debug, Clone, Default, Args)]
pub struct ExtrasArgs {
    /// A colour configuration (config.ocio) with its tables [env: OCIO] [default: Blender's own].
    #[arg(long, value_name = "PATH", hide_short_help = true)]
    pub ocio: Option<PathBuf>,
    /// An add-on to render with: a .py file, a folder, or a .zip of one; can be repeated.
    ///
    /// Rendering with it needs --trust.
    #[arg(long, value_name = "PATH", hide_short_help = true)]
    pub addon: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum KilnCommand {
    /// Render an animation: here, or on your farm with this machine in it.
    Render(Box<RenderArgs>),
    /// Leave a job with the farm.
    Submit(Box<SubmitArgs>),
    /// Run the farm's server.
    Server(ServerArgs),
    /// Let this machine render for a farm.
    Worker(WorkerArgs),
    /// Keep a server or a worker running over reboots, as a service of systemd.
    Service {
        #[command(subcommand)]
        command: ServiceCommand,
    },
    /// See and steer jobs.
    Jobs(JobsArgs),
    /// See and steer workers.
    Workers(WorkersArgs),
    /// Watch jobs and workers live, and steer them by keys.
    Top(TopArgs),
    /// The users of the farm, and their shares of it.
    #[command(after_long_help = "Examples:\n  kiln users\n  kiln users set ada --weight 200 --max-slots 8")]
    Users(SharesArgs),
    /// The projects on the farm, and their shares of it.
    #[command(after_long_help = "Examples:\n  kiln projects\n  kiln projects set film --weight 300")]
    Projects(SharesArgs),
    /// The farm's limits, such as licences.
    Limits(LimitsArgs),
    /// The Blenders of this machine.
    Blender {
        #[command(subcommand)]
        command: BlenderCommand,
    },
    /// Lay a .blend and all that it needs into a folder or a zip that opens anywhere.
    Bundle(BundleArgs),
    /// Print the contents of a .blend, read without Blender.
    #[command(after_long_help = "Examples:\n  kiln inspect shot.blend\n  kiln inspect shot.blend --json")]
    Inspect {
        /// The .blend.
        file: PathBuf,
    },
    /// Every setting, its value, and where the value came from.
    #[command(
        after_long_help = "Flags go over KILN_* variables, those over kiln.toml, that over the defaults.\n\n\
        Examples:\n  kiln config\n  KILN_SLOTS=2 kiln config --json"
    )]
    Config {
        #[command(flatten)]
        farm: FarmArgs,
    },
    /// Print completions for a shell.
    #[command(
        after_long_help = "Example:\n  kiln completions bash > ~/.local/share/bash-completion/completions/kiln"
    )]
    Completions {
        /// bash, zsh, fish, elvish or powershell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a folder.
    #[command(after_long_help = "Example:\n  kiln man ~/.local/share/man/man1")]
    Man {
        /// The folder; made where it is not there.
        dir: PathBuf,
    },
    /// Help on a command, or on `exit-codes`.
    Help {
        /// The command, such as `jobs fetch`.
        topic: Vec<String>,
    },
}

#[cfg(test)]
mod tests;
