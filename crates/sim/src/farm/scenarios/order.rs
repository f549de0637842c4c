//! Scenarios of the order of jobs.

use std::collections::{BTreeMap, BTreeSet};

use kiln_core::{Account, Moment, Requirement, SchedulingOptions, Share};
use kiln_types::JobId;

use super::{HOUR, MINUTE, SECOND, Scenario, clock, line};
use crate::farm::{FarmSetup, Node, RunEnd, Shot, Timeline};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "PRIORITY",
        promise: "a job of higher priority takes over as frames end: its last frame is out within a frame's time \
                  of what it would take alone",
        farm: || FarmSetup {
            nodes: nodes(8),
            shots: vec![
                Shot::even(1, 400, 20 * SECOND),
                Shot::even(2, 80, 20 * SECOND).at(MINUTE).priority(90),
            ],
            ..FarmSetup::default()
        },
        judge: |_, timeline| {
            let took = timeline.end_of(2).unwrap_or(u64::MAX) - MINUTE;
            // Ten rounds on eight slots, after the frames that ran; a twentieth of the time is owed to others.
            line(took <= 240 * SECOND, format!("{} after it came; alone it takes 3:20", clock(took)))
        },
    },
    Scenario {
        name: "FAIR SHARE",
        promise: "time goes 3 to 1 between projects of weight 300 and 100, and evenly between the two users of one, \
                  within a tenth, however many jobs each has",
        farm: || {
            let of = |project: &str, user: &str| SchedulingOptions {
                project: project.into(),
                user: user.into(),
                ..SchedulingOptions::default()
            };
            let mut shots = vec![Shot::even(1, 5000, 10 * SECOND).scheduled(of("show", "ada"))];
            shots.extend((2..=6).map(|id| Shot::even(id, 1000, 10 * SECOND).scheduled(of("show", "bob"))));
            shots.push(Shot::even(7, 5000, 10 * SECOND).scheduled(of("ad", "cy")));
            let shares = vec![(Account::Project("show".into()), Share { weight: 300, max_slots: None })];
            FarmSetup { nodes: nodes(16), shots, shares, until: Some(30 * MINUTE), ..FarmSetup::default() }
        },
        judge: |_, timeline| {
            let busy = |jobs: std::ops::RangeInclusive<u64>| -> f64 {
                jobs.map(|job| timeline.busy_ms(job, 0, 30 * MINUTE)).sum::<u64>() as f64
            };
            let (ada, bob, cy) = (busy(1..=1), busy(2..=6), busy(7..=7));
            let all = ada + bob + cy;
            let near = |part: f64, want: f64| (part / all - want).abs() < want / 10.0;
            line(
                near(ada, 0.375) && near(bob, 0.375) && near(cy, 0.25),
                format!(
                    "{:.1} % and {:.1} % to {:.1} %",
                    100.0 * ada / all,
                    100.0 * bob / all,
                    100.0 * cy / all
                ),
            )
        },
    },
    Scenario {
        name: "STARVATION",
        promise: "a job of the lowest priority ends although jobs of higher priority never stop coming, and gets a \
                  fortieth to a tenth of the time",
        farm: || {
            let mut shots = vec![Shot::even(1, 60, 10 * SECOND).priority(0)];
            shots
                .extend((0..60).map(|n| Shot::even(n + 2, 100, 10 * SECOND).at(n * 2 * MINUTE).priority(80)));
            FarmSetup { nodes: nodes(8), shots, ..FarmSetup::default() }
        },
        judge: |_, timeline| {
            let (low, all) = (timeline.end_of(1).unwrap_or(u64::MAX), timeline.took_ms());
            let part = timeline.busy_ms(1, 0, low) as f64 / (8 * low) as f64;
            let ends = low < all * 3 / 4 && (0.025..=0.1).contains(&part);
            line(
                ends,
                format!(
                    "it ends at {} of {}, with {:.1} % of the time",
                    clock(low),
                    clock(all),
                    100.0 * part
                ),
            )
        },
    },
    Scenario {
        name: "LIMIT (job)",
        promise: "a job that may be on 3 workers at once is on 3 all the time, and never on a fourth; others take \
                  the rest",
        farm: || {
            let capped = SchedulingOptions { max_workers: Some(3), ..SchedulingOptions::default() };
            let shots =
                vec![Shot::even(1, 90, 20 * SECOND).scheduled(capped), Shot::even(2, 210, 20 * SECOND)];
            FarmSetup { nodes: nodes(10), shots, ..FarmSetup::default() }
        },
        judge: |farm, timeline| {
            let (most, took) = (workers_at_once(timeline, 1), timeline.took_ms());
            let part = busy_percent(farm, timeline);
            line(
                most == 3 && part >= 93,
                format!("{most} at most; all slots are busy {part} % of {}", clock(took)),
            )
        },
    },
    Scenario {
        name: "LIMIT (user)",
        promise: "a user who may hold 4 slots holds 4 and never a fifth, over all jobs; others take the rest",
        farm: || {
            let of = |user: &str| SchedulingOptions { user: user.into(), ..SchedulingOptions::default() };
            let shots = vec![
                Shot::even(1, 60, 20 * SECOND).scheduled(of("ada")),
                Shot::even(2, 60, 20 * SECOND).scheduled(of("ada")),
                Shot::even(3, 240, 20 * SECOND).scheduled(of("bob")),
            ];
            let shares =
                vec![(Account::User("ada".into()), Share { max_slots: Some(4), ..Share::default() })];
            FarmSetup { nodes: nodes(12), shots, shares, ..FarmSetup::default() }
        },
        judge: |farm, timeline| {
            let ada = timeline.of(1).chain(timeline.of(2)).map(|run| (run.began, run.ended));
            let (most, part) = (Timeline::most_at_once(ada), busy_percent(farm, timeline));
            line(most == 4 && part >= 93, format!("{most} at most; all slots are busy {part} % of the time"))
        },
    },
    Scenario {
        name: "LICENCE",
        promise: "of 5 licences never more than 5 are in use, and all of them nine tenths of the time; jobs that need \
                  none take the other slots",
        farm: || {
            let licensed =
                Requirement { limits: BTreeMap::from([("renderer".into(), 1)]), ..Requirement::default() };
            let shots = vec![
                Shot::even(1, 60, 30 * SECOND).requires(licensed.clone()),
                Shot::even(2, 60, 30 * SECOND).requires(licensed),
                Shot::even(3, 260, 30 * SECOND),
            ];
            FarmSetup {
                nodes: nodes(16),
                shots,
                limits: BTreeMap::from([("renderer".into(), 5)]),
                ..FarmSetup::default()
            }
        },
        judge: |_, timeline| {
            let runs = || timeline.of(1).chain(timeline.of(2));
            let most = Timeline::most_at_once(runs().map(|run| (run.began, run.ended)));
            let end = timeline.end_of(1).max(timeline.end_of(2)).unwrap_or(u64::MAX);
            let used: u64 = runs().map(|run| run.ended - run.began).sum();
            let part = used * 100 / (5 * end);
            line(
                most == 5 && part >= 90,
                format!("{most} at most, {part} % of their time in use until {}", clock(end)),
            )
        },
    },
    Scenario {
        name: "DEPENDS",
        promise: "a job starts when the one that it waits for has ended, on the first slot that is free, and not before",
        farm: || {
            let after =
                SchedulingOptions { after: BTreeSet::from([JobId(1)]), ..SchedulingOptions::default() };
            let shots = vec![
                Shot::even(1, 40, 20 * SECOND),
                Shot::even(2, 40, 20 * SECOND).scheduled(after.clone()),
                Shot::even(3, 400, 20 * SECOND).priority(10),
            ];
            FarmSetup { nodes: nodes(8), shots, ..FarmSetup::default() }
        },
        judge: |_, timeline| {
            let (end, start) = (timeline.end_of(1).unwrap_or(0), timeline.start_of(2).unwrap_or(0));
            let wait = start.saturating_sub(end);
            // The slots are at work for others meanwhile: the first to be free takes it.
            line(
                start >= end && wait <= 21 * SECOND && timeline.completed(),
                format!(
                    "{:.1} s after; every slot was at work for others, whose frames take 20 s",
                    wait as f64 / 1000.0
                ),
            )
        },
    },
    Scenario {
        name: "NOT BEFORE",
        promise: "a job that is to begin at a time begins then, within a second",
        farm: || {
            let later = SchedulingOptions { not_before: Some(Moment(HOUR)), ..SchedulingOptions::default() };
            FarmSetup {
                nodes: nodes(2),
                shots: vec![Shot::even(1, 10, SECOND).scheduled(later)],
                ..FarmSetup::default()
            }
        },
        judge: |_, timeline| {
            let start = timeline.start_of(1).unwrap_or(0);
            line(
                (HOUR..=HOUR + SECOND).contains(&start),
                format!("{:.1} s after", start.saturating_sub(HOUR) as f64 / 1000.0),
            )
        },
    },
];

fn nodes(count: usize) -> Vec<Node> {
    vec![Node::new(1, 100); count]
}

fn workers_at_once(timeline: &Timeline, job: u64) -> usize {
    // One slot each.
    Timeline::most_at_once(timeline.of(job).map(|run| (run.began, run.ended)))
}

/// The percentage of the slots' time that went to delivered frames.
fn busy_percent(farm: &FarmSetup, timeline: &Timeline) -> u64 {
    let slots: u64 = farm.nodes.iter().map(|node| u64::from(node.offer.slots)).sum();
    let rendered = timeline.runs.iter().filter(|run| run.end == RunEnd::Rendered);
    rendered.map(|run| run.ended - run.began).sum::<u64>() * 100 / (slots * timeline.took_ms())
}
