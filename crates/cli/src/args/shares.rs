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
    /// Those that have jobs, or of whom something was set.
    List {
        #[command(flatten)]
        farm: FarmArgs,
    },
    /// Give more or less of the farm.
    Set(SetShareArgs),
}

#[derive(Debug, Args)]
#[command(after_long_help = "Who has no work takes nothing from the others, whatever the weight.\n\n\
    Examples:\n  kiln users set ada --weight 200\n  kiln projects set advert --max-slots 4\n  \
    kiln users set ben --max-slots none")]
#[group(required = true, multiple = true, id = "what", args = ["weight", "max_slots"])]
pub struct SetShareArgs {
    /// The name, as jobs say it.
    pub name: Name,
    /// Of two that have work, one of twice the weight gets twice the time; 1 to 10000 [default: 100].
    #[arg(long, value_name = "N")]
    pub weight: Option<u32>,
    /// Slots that may work for it at once, or `none` for as many as there are.
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
    /// Say how many there are.
    #[command(
        after_long_help = "Fewer than are in use stops nothing that runs.\n\nExample:\n  kiln limits set nuke 3"
    )]
    Set {
        /// The name, as jobs say it with --limit.
        name: ShortName,
        /// The number of them.
        total: u32,
        #[command(flatten)]
        farm: FarmArgs,
    },
    /// Remove a limit that no job needs.
    Remove {
        /// The name.
        name: ShortName,
        #[command(flatten)]
        farm: FarmArgs,
    },
}
