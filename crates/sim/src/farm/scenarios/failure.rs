//! Scenarios of failures.

use super::{HOUR, MINUTE, SECOND, Scenario, clock, line};
use crate::farm::{FarmSetup, Node, NodeEvent, RunEnd, Shot, lower_bound_ms};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "STRAGGLER",
        promise: "one machine in ten is ten times slower, and the job ends within a twentieth of the bound",
        farm: || {
            let mut nodes = vec![Node::new(1, 1000); 10];
            nodes[3].speed = 100;
            FarmSetup { nodes, shots: vec![Shot::even(1, 200, 300 * SECOND)], ..FarmSetup::default() }
        },
        judge: |farm, timeline| {
            let (bound, took) = (lower_bound_ms(farm), timeline.took_ms());
            let over = 100.0 * (took as f64 / bound as f64 - 1.0);
            line(
                over <= 5.0,
                format!(
                    "{over:.1} % over the bound of {}, with {} second attempts",
                    clock(bound),
                    timeline.speculations
                ),
            )
        },
    },
    Scenario {
        name: "SLEEP",
        promise: "machines that sleep from 22:00 to 06:00 begin nothing then, and nothing that they began is lost",
        farm: || {
            // From 20:00 on, three nights.
            let nights = (0..3).flat_map(|day| {
                [
                    (day * 24 * HOUR + 2 * HOUR, NodeEvent::Unavailable),
                    (day * 24 * HOUR + 10 * HOUR, NodeEvent::Works),
                ]
            });
            let sleeper = Node { events: nights.collect(), ..Node::new(2, 100) };
            FarmSetup {
                nodes: vec![sleeper.clone(), sleeper, Node::new(1, 100)],
                shots: vec![Shot::even(1, 600, 17 * MINUTE)],
                ..FarmSetup::default()
            }
        },
        judge: |_, timeline| {
            // What was on its way when it fell asleep begins.
            let asleep = |at: u64| (2 * HOUR + SECOND..10 * HOUR).contains(&(at % (24 * HOUR)));
            let late = |run: &&crate::farm::Run| run.node < 2 && asleep(run.began);
            let (in_sleep, lost) = (
                timeline.runs.iter().filter(late).count(),
                timeline.runs.iter().filter(|run| run.node < 2 && run.end == RunEnd::Lost).count(),
            );
            line(
                in_sleep == 0 && lost == 0 && timeline.completed(),
                format!(
                    "{in_sleep} frames begun asleep, {lost} lost; done after {} h",
                    timeline.took_ms() / HOUR
                ),
            )
        },
    },
    Scenario {
        name: "FLAPPING WORKERS",
        promise: "half of the machines die every few minutes and come back; the job completes, and takes no longer than \
                  half as long again as the machines that stay and the flapping ones' whole frames allow",
        farm: || {
            let flaps = |phase: u64| {
                let deaths = (0..40).flat_map(move |n| {
                    let at = phase * 20 * SECOND + n * 4 * MINUTE + 3 * MINUTE;
                    [(at, NodeEvent::Dies), (at + 30 * SECOND, NodeEvent::Returns)]
                });
                Node { events: deaths.collect(), ..Node::new(1, 100) }
            };
            let mut nodes = vec![Node::new(1, 100); 4];
            nodes.extend((0..4).map(flaps));
            FarmSetup { nodes, shots: vec![Shot::even(1, 200, 40 * SECOND)], ..FarmSetup::default() }
        },
        judge: |_, timeline| {
            let lost = timeline.runs.iter().filter(|run| run.end == RunEnd::Lost).count();
            let took = timeline.took_ms();
            // A flapping machine ends 4 frames every 4 minutes, a steady one 6.
            let allowed = 200 * 4 * MINUTE / (4 * 6 + 4 * 4);
            line(
                timeline.completed() && took <= allowed * 3 / 2,
                format!(
                    "{lost} frames were lost with their machines and rendered again; done at {}, of {}",
                    clock(took),
                    clock(allowed)
                ),
            )
        },
    },
    Scenario {
        name: "QUARANTINE",
        promise: "a machine on which everything fails is set aside after a few failures and tried again ever more \
                  seldom; no frame fails for it; when it is well it works again",
        farm: || {
            let mut nodes = vec![Node::new(1, 100); 5];
            nodes[2].events = vec![(2 * MINUTE, NodeEvent::Breaks), (40 * MINUTE, NodeEvent::Recovers)];
            FarmSetup { nodes, shots: vec![Shot::even(1, 1200, 20 * SECOND)], ..FarmSetup::default() }
        },
        judge: |_, timeline| {
            let failed = timeline.runs.iter().filter(|run| matches!(run.end, RunEnd::Failed(_))).count();
            let well = timeline
                .runs
                .iter()
                .filter(|run| run.node == 2 && run.began > 40 * MINUTE && run.end == RunEnd::Rendered);
            let well = well.count();
            line(
                timeline.completed() && timeline.failed.is_empty() && failed <= 12 && well > 20,
                format!(
                    "{failed} attempts failed in 38 minutes; {well} frames rendered on it after it was well"
                ),
            )
        },
    },
    Scenario {
        name: "POISON FRAME",
        promise: "a frame that takes every machine down fails after three, one that fails wherever it runs after three \
                  as well; every other frame is done, and no machine is set aside for it",
        farm: || {
            let mut shot = Shot::even(1, 120, 20 * SECOND);
            shot.deadly.insert(33);
            shot.broken.insert(66);
            FarmSetup { nodes: vec![Node::new(2, 100); 6], shots: vec![shot], ..FarmSetup::default() }
        },
        judge: |_, timeline| {
            let tries = |index: u32| timeline.of(1).filter(|run| run.task.index.0 == index).count();
            let workers = |index: u32| {
                let on: std::collections::BTreeSet<usize> =
                    timeline.of(1).filter(|run| run.task.index.0 == index).map(|run| run.node).collect();
                on.len()
            };
            let (deadly, broken) = (tries(33), tries(66));
            line(
                timeline.commits.len() == 118
                    && timeline.failed.len() == 2
                    && deadly <= 3
                    && broken == 3
                    && workers(66) == 3,
                format!(
                    "{deadly} machines died, {broken} attempts failed on {} machines; 118 of 120 done",
                    workers(66)
                ),
            )
        },
    },
    Scenario {
        name: "FULL RESTART",
        promise: "the server is killed three times, once for ten minutes; every frame is committed once, none that was \
                  done is rendered again, and what ran meanwhile counts",
        farm: || FarmSetup {
            nodes: vec![Node::new(2, 100), Node::new(2, 200), Node::new(1, 300)],
            shots: vec![Shot::even(1, 300, 60 * SECOND)],
            outages: vec![(5 * MINUTE, 20 * SECOND), (12 * MINUTE, 10 * MINUTE), (30 * MINUTE, SECOND)],
            ..FarmSetup::default()
        },
        judge: |farm, timeline| {
            let rendered = timeline.runs.iter().filter(|run| run.end == RunEnd::Rendered).count();
            let (bound, took) = (lower_bound_ms(farm), timeline.took_ms());
            // Workers go on with their queues while it is down.
            line(
                timeline.completed() && rendered <= 302 && took <= bound + 11 * MINUTE,
                format!(
                    "{rendered} frames rendered for 300; done at {}, of {} and 10:21 without a server",
                    clock(took),
                    clock(bound)
                ),
            )
        },
    },
];
