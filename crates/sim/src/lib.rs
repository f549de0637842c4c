//! The real core under simulated workers, networks, clocks, people and faults: weeks in milliseconds.
//!
//! A seed decides everything, so that a failure is repeatable. A run has two parts. In the first, faults are injected:
//! workers die, stall, lose their connection and send false reports, the server stalls or is killed between any two
//! steps, and people change their minds. In the second, the calm, every worker is connected and every job must end.
//! Throughout, a [`Checker`](check::Checker) that sees only records and messages checks that
//! - every generation of a task commits at most once, and by an attempt that was dispatched to its worker;
//! - the delivery of an open attempt is never refused;
//! - a worker that returns everything gets work less and less often;
//! - no slot gets work while it still has an attempt that the core has revoked;
//! - nothing that was acknowledged is lost, whenever the server dies;
//! - no worker expires within a lease of the arrival of its last message, however long that waits;
//! - a stream has no slot and does not commit before all that it depends on is done, nor if that is made again;
//! - the claims on a machine never exceed its memory;
//! - a task fails only after enough attempts, a job is completed only with every task done;
//! - every job ends.
//!
//! [`kiln_core::Core::sanity_check`] runs after every event, too.
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
    /// The most slots of a worker.
    pub slots: u16,
    /// Jobs, which are submitted one after another while faults are injected.
    pub jobs: u16,
    /// The most tasks of a step.
    pub tasks: u32,
    /// The time of the longest frame on an average worker.
    pub frame_ms: u64,
    /// The time in which faults are injected.
    pub faulty_ms: u64,
    /// The time between two faults, on average.
    pub fault_every_ms: u64,
    /// The time between two requests of people, on average.
    pub act_every_ms: u64,
    /// One frame in this many fails by chance; 0 for none.
    pub fails_one_in: u32,
    /// One task in this many kills every worker that begins it; 0 for none.
    pub kills_one_in: u32,
    /// The server is killed at one input in this many; 0 for none.
    pub server_dies_one_in: u32,
    /// Workers report attempts that they do not hold, and repeat reports.
    pub liars: bool,
    /// Jobs have steps of every kind: parts, streams, without a session, added later.
    pub kinds: bool,
}

impl FaultScenario {
    /// Draws a farm and its faults from the seed.
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
            act_every_ms: rng.random_range(10_000..=60_000),
            fails_one_in,
            kills_one_in,
            server_dies_one_in,
            liars: rng.random_bool(0.5),
            kinds: false,
        }
    }

    /// Draws a farm whose jobs have steps of every kind.
    pub fn with_kinds(seed: u64) -> Self {
        Self { kinds: true, ..Self::from_seed(seed) }
    }

    /// Runs the scenario to its end.
    ///
    /// # Panics
    /// If an invariant is broken, after printing how to run the seed again.
    pub fn run(self, seed: u64) -> Report {
        let _guard = SeedReport { seed };
        world::World::new(self, seed).run()
    }
}

/// Runs the scenario of this seed.
///
/// # Panics
/// If an invariant is broken, after printing how to run the seed again.
pub fn run(seed: u64) -> Report {
    FaultScenario::from_seed(seed).run(seed)
}

/// A guard that prints how to repeat a run that panics.
struct SeedReport {
    seed: u64,
}

impl Drop for SeedReport {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.seed;
            eprintln!("Seed {seed} failed. Run it again: KILN_SEED={seed} cargo test -p kiln-sim one_seed");
        }
    }
}
