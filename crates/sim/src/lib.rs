//! The real core under simulated workers, networks, clocks, people and faults: weeks in milliseconds.
//!
//! Everything comes from a seed, so what broke once breaks again. A run has two parts. In the first, faults are
//! injected: workers die, stall, lose their connection and lie, the server stalls or is killed between any two steps,
//! and people change their minds. In the second, the calm, every worker is there and every job must end. Throughout, a
//! [`Checker`](check::Checker) that knows nothing of the core's insides watches that
//! - every generation of a task commits at most once, and by an attempt that was dispatched to its worker;
//! - an open attempt that delivers is never turned away;
//! - a worker that returns everything is asked less and less often;
//! - no slot is given work while it still runs something that the core has revoked;
//! - nothing that was acknowledged is lost, whenever the server dies;
//! - no worker expires of which something has arrived within a lease, however long that waits;
//! - what streams has no slot and commits nothing before all that it depends on is there, and nothing of it is made again;
//! - a machine is never given more memory than it has;
//! - a task only fails with the attempts to show for it, a job is only completed with every task done;
//! - every job ends.
//!
//! [`kiln_core::Core::sanity_check`] runs after every event besides.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod agenda;
mod check;
#[cfg(test)]
mod check_tests;
mod devices;
pub mod farm;
mod faults;
mod kinds;
mod person;
mod report;
mod rules;
mod server;
mod slots;
mod stall;
mod worker;
mod world;

use rand::{RngExt, SeedableRng, rngs::StdRng};

pub use report::Report;

/// The settings of a run. Times are milliseconds of the simulated clock.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultScenario {
    pub workers: u16,
    /// The most slots that a worker has.
    pub slots: u16,
    /// Jobs that are submitted, one after another while faults are injected.
    pub jobs: u16,
    /// The most tasks that a step has.
    pub tasks: u32,
    /// The longest that a frame takes on a worker of middling speed.
    pub frame_ms: u64,
    /// The time in which faults are injected.
    pub faulty_ms: u64,
    /// The time between two faults, on average.
    pub fault_every_ms: u64,
    /// The time between two requests of people, on average.
    pub verb_every_ms: u64,
    /// One frame in so many fails on whichever worker it runs, by chance; 0 for none.
    pub fails_one_in: u32,
    /// One task in so many kills every worker that begins it; 0 for none.
    pub kills_one_in: u32,
    /// One input of the server in so many is its last; 0 for none.
    pub server_dies_one_in: u32,
    /// True if workers report what they do not hold, and repeat what they have reported.
    pub liars: bool,
    /// True if jobs have steps of every kind: parts, streams, without a session, added later.
    pub kinds: bool,
}

impl FaultScenario {
    /// A farm and its faults, drawn from the seed.
    pub fn from_seed(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x5CE2_A210);
        let mut rare =
            |one_in: u32| if rng.random_bool(0.3) { 0 } else { rng.random_range(one_in / 4..=one_in) };
        let (fails_one_in, kills_one_in, server_dies_one_in) = (rare(40), rare(60), rare(400));
        Self {
            workers: rng.random_range(1..=6),
            slots: rng.random_range(1..=3),
            jobs: rng.random_range(1..=4),
            tasks: rng.random_range(1..=30),
            frame_ms: [50, 1_000, 20_000, 60_000][rng.random_range(0..4)],
            faulty_ms: rng.random_range(60_000..=400_000),
            fault_every_ms: rng.random_range(5_000..=60_000),
            verb_every_ms: rng.random_range(10_000..=60_000),
            fails_one_in,
            kills_one_in,
            server_dies_one_in,
            liars: rng.random_bool(0.5),
            kinds: false,
        }
    }

    /// The same, of jobs with steps of every kind.
    pub fn with_kinds(seed: u64) -> Self {
        Self { kinds: true, ..Self::from_seed(seed) }
    }

    /// Runs it to the end.
    ///
    /// # Panics
    /// Where an invariant is broken, after printing how to run the seed again.
    pub fn run(self, seed: u64) -> Report {
        let _guard = SaysHowToRepeat { seed };
        world::World::new(self, seed).run()
    }
}

/// Runs the scenario of this seed.
///
/// # Panics
/// Where an invariant is broken, after printing how to run the seed again.
pub fn run(seed: u64) -> Report {
    FaultScenario::from_seed(seed).run(seed)
}

struct SaysHowToRepeat {
    seed: u64,
}

impl Drop for SaysHowToRepeat {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.seed;
            eprintln!("Seed {seed} broke. Run it again: KILN_SEED={seed} cargo test -p kiln-sim one_seed");
        }
    }
}
