//! `kiln top`.

use clap::Args;

use super::FarmArgs;

#[derive(Debug, Args)]
#[command(after_long_help = "\
Keys: Tab goes to the other table, arrows select, e explains why a job waits, p pauses, r retries failed frames, c \
cancels, + and - change the priority, d drains a worker, w lets it work again, ? lists all keys, q quits. The exit code \
is 0 after q, and 130 after a signal.

With --once, or in a pipe, it prints the farm once as text and ends; with --json, as one document.

Examples:
  kiln top
  kiln top --server http://10.0.0.5:8765 --key-file farm.key
  kiln top --once
  kiln top --json | jq '.workers[] | {name, state}'")]
pub struct TopArgs {
    /// Print the farm once and end.
    #[arg(long)]
    pub once: bool,
    #[command(flatten)]
    pub farm: FarmArgs,
}
