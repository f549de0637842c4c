//! What a worker gives to the farm, and when.

use clap::Args;
use kiln_worker::{Sleep, WhenUsed, Yields};

use crate::{settings::Span, size::ByteSize};

#[derive(Debug, Clone, Default, PartialEq, Args)]
#[command(next_help_heading = "What the farm gets")]
pub struct WishArgs {
    /// Cores that it gives to the farm: fewer slots, and fewer threads of each Blender [env: KILN_CORES]
    /// [default: all].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub cores: Option<u32>,
    /// Memory that it gives to the farm, such as 16G [env: KILN_MEMORY] [default: all].
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<ByteSize>,
    /// How far its Blenders stand back for other programs, from 0 to 19 [env: KILN_NICE] [default: 0].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=19))]
    pub nice: Option<u16>,
    /// A name that jobs may ask for; give it again for more [env: KILN_TAG, several separated by `;`].
    #[arg(long, value_name = "NAME")]
    pub tag: Vec<String>,
    /// Times at which it takes no work, such as `22:00-08:00` or `mon-fri 09:00-18:00`, by this machine's clock; give it
    /// again for more [env: KILN_SLEEP, several separated by `;`].
    #[arg(long, value_name = "TIMES")]
    pub sleep: Vec<Sleep>,
    /// Takes no work while a person uses the machine: `yes`, `no`, or `auto`, which does so where somebody has a
    /// graphical session on it; `--yield` alone means yes [env: KILN_YIELD] [default: auto].
    #[arg(
        long = "yield",
        value_name = "WHEN",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "yes"
    )]
    pub yields: Option<Yields>,
    /// Nobody is there who has touched nothing for so long; 0s: hands do not count [env: KILN_YIELD_IDLE]
    /// [default: 5m].
    #[arg(long, value_name = "TIME")]
    pub yield_idle: Option<Span>,
    /// Cores that other programs must keep busy for it to yield [env: KILN_YIELD_LOAD]
    /// [default: half of the machine's].
    #[arg(long, value_name = "CORES")]
    pub yield_load: Option<f64>,
    /// What becomes of a frame that renders when the machine is used, or it is time to sleep: `finish` it, behind all
    /// other programs, or `stop` and hand it back [env: KILN_WHEN_USED] [default: finish].
    #[arg(long, value_name = "WHAT")]
    pub when_used: Option<WhenUsed>,
    /// Lets the farm wake this machine over the network when it is off and work waits for it [env: KILN_WAKE].
    #[arg(long)]
    pub wake: bool,
}
