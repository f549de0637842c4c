//! `kiln top`.

use clap::Args;

use super::FarmArgs;

#[derive(Debug, Args)]
#[command(after_long_help = "\
Keys: Tab goes to the other table, arrows select, e explains why a job waits, p pauses, r retries failed frames, c \
cancels, + and - change the priority, d drains a worker, w lets it work again, ? lists all, q quits. Ends with 0 where you quit it, with 130 by a \
signal.

Where nobody looks, in a pipe or with --once, it prints the farm once, as text, and ends; with --json, as one document.

Examples:
  kiln top
  kiln top --server http://10.0.0.5:8765 --key-file farm.key
  kiln top --once
  kiln top --json | jq '.workers[] | {name, state}'")]
pub struct TopArgs {
    /// Print the farm once, and end.
    #[arg(long)]
    pub once: bool,
    #[command(flatten)]
    pub farm: FarmArgs,
}
