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
  kiln submit shot.blend --frames 1-250      submits a job to the farm
  kiln jobs                                  what the farm is doing
  kiln top                                   the same, live

Options, KILN_* variables and kiln.toml write a DURATION alike, in whole seconds: 90s, 30m, 1h30m, 7d, 2w or \
'1d 12h'. A SIZE is a number of bytes: 500M, 20G or 2T.

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
    /// It is one document, or a line for each event if the output is a stream.
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
    /// Render an animation on this machine, or on your farm together with this machine.
    Render(Box<RenderArgs>),
    /// Submit a job to the farm.
    Submit(Box<SubmitArgs>),
    /// Run the farm's server.
    Server(ServerArgs),
    /// Let this machine render for a farm.
    Worker(WorkerArgs),
    /// Keep a server or a worker running across reboots, as a systemd service.
    Service {
        #[command(subcommand)]
        command: ServiceCommand,
    },
    /// List jobs, and change them.
    Jobs(JobsArgs),
    /// List workers, and change what they do.
    Workers(WorkersArgs),
    /// Watch jobs and workers live, and change them with keys.
    Top(TopArgs),
    /// List the users of the farm, and set their shares of it.
    #[command(after_long_help = "Examples:\n  kiln users\n  kiln users set ada --weight 200 --max-slots 8")]
    Users(SharesArgs),
    /// List the projects on the farm, and set their shares of it.
    #[command(after_long_help = "Examples:\n  kiln projects\n  kiln projects set advert --weight 300")]
    Projects(SharesArgs),
    /// List and set the farm's limits, such as licences.
    Limits(LimitsArgs),
    /// List the Blenders of this machine, or install one.
    Blender {
        #[command(subcommand)]
        command: BlenderCommand,
    },
    /// Copy a .blend and all files that it needs into a folder or a zip that opens anywhere.
    Bundle(BundleArgs),
    /// Print the contents of a .blend, read without Blender.
    #[command(after_long_help = "Examples:\n  kiln inspect shot.blend\n  kiln inspect shot.blend --json")]
    Inspect {
        /// The .blend.
        file: PathBuf,
    },
    /// Print every setting with its value and where the value comes from.
    #[command(
        after_long_help = "Flags override KILN_* variables, which override kiln.toml, which overrides the defaults.\n\n\
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
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a folder.
    #[command(after_long_help = "Example:\n  kiln man ~/.local/share/man/man1")]
    Man {
        /// The folder; Kiln creates it if it does not exist.
        dir: PathBuf,
    },
    /// Explain a command, or the `exit-codes`.
    Help {
        /// The command, such as `jobs fetch`.
        topic: Vec<String>,
    },
}

#[cfg(test)]
mod tests;
