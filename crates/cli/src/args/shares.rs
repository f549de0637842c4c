//! `kiln users`, `kiln projects` and `kiln limits`.

use clap::{Args, Subcommand};

use kiln_types::{Name, ShortName};

use super::{FarmArgs, OrNone};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct SharesArgs {
    #[command(subcommand)]
    pub command: Option<SharesCommand>,
    #[command(flatten)]
    pub farm: FarmArgs,
}

#[derive(Debug, Subcommand)]
pub enum SharesCommand {
    /// List those that have jobs, or whose share was set.
    List {
        #[command(flatten)]
        farm: FarmArgs,
    },
    /// Set the share of the farm of a user or a project.
    Set(SetShareArgs),
}

#[derive(Debug, Args)]
#[command(
    after_long_help = "A user or a project without work takes nothing from the others, whatever its weight.\n\n\
    Examples:\n  kiln users set ada --weight 200\n  kiln projects set advert --max-slots 4\n  \
    kiln users set ben --max-slots none"
)]
#[group(required = true, multiple = true, id = "what", args = ["weight", "max_slots"])]
pub struct SetShareArgs {
    /// The name of the user or the project.
    pub name: Name,
    /// From 1 to 10000: twice the weight gives twice the time on the farm [default: 100].
    #[arg(long, value_name = "N")]
    pub weight: Option<u32>,
    /// Slots that it may use at once, or `none` for all.
    #[arg(long, value_name = "N|none")]
    pub max_slots: Option<OrNone<u32>>,
    #[command(flatten)]
    pub farm: FarmArgs,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(
    after_long_help = "Examples:\n  kiln limits set nuke 3\n  kiln submit shot.blend --limit nuke\n  kiln limits"
)]
pub struct LimitsArgs {
    #[command(subcommand)]
    pub command: Option<LimitsCommand>,
    #[command(flatten)]
    pub farm: FarmArgs,
}

#[derive(Debug, Subcommand)]
pub enum LimitsCommand {
    /// List the limits, and how many of each are in use.
    List {
        #[command(flatten)]
        farm: FarmArgs,
    },
    /// Set the total of a limit.
    #[command(
        after_long_help = "A total below the number in use stops nothing that runs.\n\nExample:\n  kiln limits set nuke 3"
    )]
    Set {
        /// The name that jobs give with --limit.
        name: ShortName,
        /// The number that all jobs together may use at once.
        total: u32,
        #[command(flatten)]
        farm: FarmArgs,
    },
    /// Remove a limit that no job needs.
    Remove {
        /// The name of the limit.
        name: ShortName,
        #[command(flatten)]
        farm: FarmArgs,
    },
}
