//! Hundreds of farms with faults. A seed that breaks prints how to run it again.

use std::panic::catch_unwind;

use kiln_sim::{Scenario, run};

/// `KILN_SEED=N` runs one seed and prints its report; without it, seed 1.
#[test]
fn one_seed() {
    let seed = std::env::var("KILN_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    println!("{:#?}", Scenario::from_seed(seed));
    println!("{:#?}", run(seed));
}

/// `KILN_SEEDS=N` runs that many instead.
#[test]
fn many_seeds() {
    let many = std::env::var("KILN_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(300);
    let mut reports = Vec::new();
    let mut broken = Vec::new();
    for seed in 1..=many {
        match catch_unwind(|| run(seed)) {
            Ok(report) => reports.push(report),
            Err(_) => broken.push(seed),
        }
    }
    assert!(broken.is_empty(), "of {many} seeds these broke, as said above: {broken:?}");
    // The faults were real: each kind came often.
    let sum = |of: fn(&kiln_sim::Report) -> u64| reports.iter().map(of).sum::<u64>();
    assert!(sum(|r| r.commits) > 10 * many, "hardly anything was rendered");
    for (what, times) in [
        ("commits behind another step", sum(|r| r.behind)),
        ("commits behind the same frame of another step", sum(|r| r.behind_frames)),
        ("lost attempts", sum(|r| r.losses)),
        ("late deliveries", sum(|r| r.superseded)),
        ("preemptions", sum(|r| r.preemptions)),
        ("speculative attempts", sum(|r| r.speculations)),
        ("deaths of the server", sum(|r| r.server_deaths)),
        ("stalls of the server", sum(|r| r.stalls)),
        ("deaths of workers", sum(|r| r.worker_deaths)),
        ("lies", sum(|r| r.lies)),
        ("refusals", sum(|r| r.refusals)),
        ("false starts", sum(|r| r.false_starts)),
        ("jobs pinned to a device", sum(|r| r.pins)),
        ("pins released", sum(|r| r.releases)),
    ] {
        println!("{times} {what}");
        assert!(times > many / 4, "only {times} {what} in {many} runs");
    }
    // It takes a worker that fails several times while others deliver.
    let (quarantines, forgiven) = (sum(|r| r.quarantines), sum(|r| r.forgiven));
    println!("{quarantines} quarantined workers, {forgiven} attempts that count against no task");
    assert!(quarantines > many / 15 && forgiven > many / 10, "hardly a worker was quarantined");
    let decisions = reports.iter().fold(0, |sum: u64, report| sum.rotate_left(1) ^ report.decisions);
    println!("{} events, {} commits, decisions {decisions:016x}", sum(|r| r.events), sum(|r| r.commits));
}

#[test]
fn a_seed_gives_the_same_run_twice() {
    assert_eq!(run(7), run(7));
}

/// Without faults nothing is lost, and nothing is rendered twice but what would have ended late.
#[test]
fn in_fair_weather_nothing_is_wasted() {
    for seed in 1..=20 {
        let fair = Scenario {
            fault_every_ms: 1_000_000_000,
            verb_every_ms: 2_000,
            jobs: 3,
            faulty_ms: 3_500,
            fails_one_in: 0,
            kills_one_in: 0,
            server_dies_one_in: 0,
            liars: false,
            ..Scenario::from_seed(seed)
        };
        let report = fair.run(seed);
        assert_eq!((report.losses, report.worker_deaths), (0, 0), "seed {seed}");
        assert!(report.superseded <= report.speculations, "seed {seed}");
    }
}
