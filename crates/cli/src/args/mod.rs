//! What can be written on the command line. Types and help texts only.

mod blender;
mod bundle;
mod jobs;
mod order;
mod render;
mod server;
mod service;
mod shares;
mod top;
mod worker;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::settings::flags::DataArgs;
pub use crate::settings::flags::FarmArgs;
pub use blender::BlenderCommand;
pub use bundle::BundleArgs;
pub use jobs::{FetchArgs, JobsArgs, JobsCommand, ListArgs, LogsArgs, SomeJobs};
pub use order::{At, Counted, Jobs, OrNone, OrderArgs};
pub use render::{JobArgs, RenderArgs, SubmitArgs, WhereArgs};
pub use server::{CollectArgs, ServerArgs, ServerCommand};
pub use service::{InstallArgs, RemoveArgs, ScopeArgs, ServiceCommand};
pub use shares::{LimitsArgs, LimitsCommand, PartiesArgs, PartiesCommand, SetShareArgs};
pub use top::TopArgs;
pub use worker::{OneWorker, PoolArgs, WorkerArgs, WorkersArgs, WorkersCommand};

const OVERVIEW: &str = "\
Examples:
  kiln render shot.blend                     renders here, or on your farm; the frames land beside the file
  kiln server --worker                       a farm that others can join, and a first worker in it
  kiln worker --server http://10.0.0.5:8765  another machine joins
  kiln service install worker                the same, also after every reboot
  kiln submit shot.blend --frames 1-250      leaves a job with the farm
  kiln jobs                                  what the farm is doing
  kiln top                                   the same, live

`kiln help COMMAND` tells more; `kiln help exit-codes` what the exit codes mean.";

/// Turns the machines you own into one Blender render farm.
#[derive(Debug, Parser)]
#[command(name = "kiln", version, after_help = OVERVIEW, disable_help_subcommand = true, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    pub global: GlobalArgs,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Clone, Args)]
pub struct GlobalArgs {
    /// One JSON document on standard output (JSON lines where it is a stream); all else on standard error.
    #[arg(long, global = true)]
    pub json: bool,
    /// Only errors and results.
    #[arg(long, short, global = true, conflicts_with = "json")]
    pub quiet: bool,
    /// Tells more of what happens, on standard error; -vv tells all.
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    #[command(flatten)]
    pub data: DataArgs,
}

/// What goes along besides what the .blend names.
#[derive(Debug, Clone, Default, Args)]
pub struct ExtrasArgs {
    /// A colour configuration (config.ocio), taken along with its tables [env: OCIO] [default: Blender's own].
    #[arg(long, value_name = "PATH")]
    pub ocio: Option<PathBuf>,
    /// An add-on to render with: a .py file, a folder, or a .zip of one; can be repeated. Rendering needs --trust.
    #[arg(long, value_name = "PATH")]
    pub addon: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
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
    /// Who uses the farm, and how much of it each gets.
    #[command(after_help = "Examples:\n  kiln users\n  kiln users set ada --weight 200 --max-slots 8")]
    Users(PartiesArgs),
    /// What the farm is used for, and how much of it each project gets.
    #[command(after_help = "Examples:\n  kiln projects\n  kiln projects set film --weight 300")]
    Projects(PartiesArgs),
    /// What the farm has only so many of, such as licences.
    Limits(LimitsArgs),
    /// The Blenders of this machine.
    Blender {
        #[command(subcommand)]
        command: BlenderCommand,
    },
    /// Lay a .blend and all that it needs into a folder or a zip that opens anywhere.
    Bundle(BundleArgs),
    /// What a .blend holds, read without Blender.
    #[command(after_help = "Examples:\n  kiln inspect shot.blend\n  kiln inspect shot.blend --json")]
    Inspect {
        /// The .blend.
        file: PathBuf,
    },
    /// Every setting, its value, and where the value came from.
    #[command(
        after_help = "Flags go over KILN_* variables, those over kiln.toml, that over the defaults.\n\n\
        Examples:\n  kiln config\n  KILN_SLOTS=2 kiln config --json"
    )]
    Config {
        #[command(flatten)]
        farm: FarmArgs,
    },
    /// Print completions for a shell.
    #[command(
        after_help = "Example:\n  kiln completions bash > ~/.local/share/bash-completion/completions/kiln"
    )]
    Completions {
        /// bash, zsh, fish, elvish or powershell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a folder.
    #[command(after_help = "Example:\n  kiln man ~/.local/share/man/man1")]
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
