//! A farm for each promise of the scheduler, with the line that it must pass.

mod failure;
mod fit;
mod order;

use super::{FarmSetup, Timeline};

/// A farm, and the condition that its timeline must meet.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    pub promise: &'static str,
    pub farm: fn() -> FarmSetup,
    /// Compares the timeline with the promise; result and error are the measure in words.
    pub judge: fn(&FarmSetup, &Timeline) -> Result<String, String>,
}

impl Scenario {
    /// # Errors
    /// The measure, if it is short of the promise.
    ///
    /// # Panics
    /// If an invariant is broken.
    pub fn run(&self) -> Result<String, String> {
        let farm = (self.farm)();
        (self.judge)(&farm, &farm.run())
    }
}

/// Every scenario, in the order of the table.
pub fn all() -> Vec<Scenario> {
    [order::SCENARIOS, fit::SCENARIOS, failure::SCENARIOS].concat()
}

fn line(holds: bool, measured: String) -> Result<String, String> {
    if holds { Ok(measured) } else { Err(measured) }
}

/// The time as minutes and seconds.
fn clock(ms: u64) -> String {
    format!("{}:{:02}", ms / 60_000, ms / 1000 % 60)
}

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const GIB: u64 = 1 << 30;

#[cfg(test)]
mod tests {
    fn passes(name: &str) {
        let all = super::all();
        let scenario = all.iter().find(|scenario| scenario.name == name).expect("a scenario of that name");
        if let Err(measured) = scenario.run() {
            panic!("{name}: promised is that {}; measured: {measured}", scenario.promise);
        }
    }

    macro_rules! scenarios {
        ($($test:ident: $name:literal,)*) => {
            $(#[test] fn $test() { passes($name) })*

            #[test]
            fn every_scenario_is_a_test() {
                let mut tested = [$($name),*];
                let mut all: Vec<&str> = super::all().iter().map(|scenario| scenario.name).collect();
                tested.sort_unstable();
                all.sort_unstable();
                assert_eq!(all, tested);
            }
        };
    }

    scenarios! {
        priority: "PRIORITY",
        fair_share: "FAIR SHARE",
        starvation: "STARVATION",
        job_limit: "LIMIT (job)",
        user_limit: "LIMIT (user)",
        licence: "LICENCE",
        tags: "TAGS",
        gpus: "GPU",
        memory: "MEMORY",
        memory_at_last: "MEMORY (nowhere)",
        reservation: "RESERVATION",
        locality: "LOCALITY",
        depends: "DEPENDS",
        not_before: "NOT BEFORE",
        straggler: "STRAGGLER",
        sleep: "SLEEP",
        flapping: "FLAPPING WORKERS",
        quarantined: "QUARANTINE",
        poison: "POISON FRAME",
        restart: "FULL RESTART",
    }
}
