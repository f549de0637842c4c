//! Hundreds of farms with faults. A seed that breaks prints how to run it again.

use std::{ops::RangeInclusive, panic::catch_unwind};

use kiln_sim::{FaultScenario, Report, run};

fn seeds(usual: u64) -> u64 {
    std::env::var("KILN_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn run_all(seeds: RangeInclusive<u64>, scenario: impl Fn(u64) -> FaultScenario) -> Vec<Report> {
    let mut reports = Vec::new();
    let mut broken = Vec::new();
    for seed in seeds.clone() {
        let scenario = scenario(seed);
        match catch_unwind(|| scenario.run(seed)) {
            Ok(report) => reports.push(report),
            Err(_) => broken.push(seed),
        }
    }
    assert!(broken.is_empty(), "of the seeds {seeds:?} these broke, as said above: {broken:?}");
    reports
}

/// `KILN_SEED=N` runs one seed and prints its report; without it, seed 1.
#[test]
fn one_seed() {
    let seed = std::env::var("KILN_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let scenario = if std::env::var_os("KILN_KINDS").is_some() {
        FaultScenario::with_kinds
    } else {
        FaultScenario::from_seed
    };
    println!("{:#?}", scenario(seed));
    println!("{:#?}", scenario(seed).run(seed));
}

/// `KILN_SEEDS=N` runs that many instead.
#[test]
fn many_seeds() {
    let many = seeds(300);
    let reports = run_all(1..=many, FaultScenario::from_seed);
    // The faults were real: each kind came often.
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
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

/// Steps of every kind: parts, streams, steps without a session, and those that are added later.
#[test]
fn many_seeds_with_every_kind_of_step() {
    let many = seeds(120);
    let reports = run_all(1..=many, FaultScenario::with_kinds);
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    for (what, times) in [
        ("commits", sum(|r| r.commits)),
        ("commits behind another step", sum(|r| r.behind)),
        ("attempts that streamed", sum(|r| r.streams)),
        ("streams that were placed", sum(|r| r.placed)),
        ("streams that were displaced", sum(|r| r.displaced)),
        ("streams that were told of more", sum(|r| r.arrived)),
        ("added steps", sum(|r| r.added)),
        ("steps added to a job that had ended", sum(|r| r.added_late)),
        ("deaths of workers", sum(|r| r.worker_deaths)),
        ("deaths of the server", sum(|r| r.server_deaths)),
    ] {
        println!("{times} {what}");
        assert!(times > many / 8, "only {times} {what} in {many} runs");
    }
}

/// One worker with one slot, one with several, several workers, and workers that are lost all the time: every job ends,
/// whatever streams on whichever memory.
#[test]
fn streams_are_never_in_the_way_of_what_they_wait_for() {
    let farms = [
        ("one slot", 1, 1, 30_000),
        ("one worker", 1, 3, 30_000),
        ("several workers", 5, 2, 30_000),
        ("workers that are lost", 4, 2, 2_000),
    ];
    for (name, workers, slots, fault_every_ms) in farms {
        let scenario = |seed| {
            let calm =
                FaultScenario { server_dies_one_in: 0, liars: false, ..FaultScenario::with_kinds(seed) };
            FaultScenario { workers, slots, fault_every_ms, jobs: 4, faulty_ms: 200_000, ..calm }
        };
        let reports = run_all(1..=seeds(25), scenario);
        let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
        let (streams, placed, deaths) = (sum(|r| r.streams), sum(|r| r.placed), sum(|r| r.worker_deaths));
        println!(
            "{name}: {streams} streams, {placed} placed, {} displaced, {deaths} deaths",
            sum(|r| r.displaced)
        );
        assert!(placed > 25, "{name}: only {placed} of {streams} streams were placed");
        assert!(fault_every_ms > 10_000 || deaths > 50, "only {deaths} workers were lost");
    }
}

#[test]
fn a_seed_gives_the_same_run_twice() {
    assert_eq!(run(7), run(7));
}

/// Without faults nothing is lost, and nothing is rendered twice but what would have ended late.
#[test]
fn in_fair_weather_nothing_is_wasted() {
    for seed in 1..=20 {
        let fair = FaultScenario {
            fault_every_ms: 1_000_000_000,
            act_every_ms: 2_000,
            jobs: 3,
            faulty_ms: 3_500,
            fails_one_in: 0,
            kills_one_in: 0,
            server_dies_one_in: 0,
            liars: false,
            ..FaultScenario::from_seed(seed)
        };
        let report = fair.run(seed);
        assert_eq!((report.losses, report.worker_deaths), (0, 0), "seed {seed}");
        assert!(report.superseded <= report.speculations, "seed {seed}");
    }
}
