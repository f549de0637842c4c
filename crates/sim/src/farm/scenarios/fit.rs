//! Scenarios of machines that fit or do not.

use std::collections::BTreeSet;
use std::num::NonZeroU16;

use kiln_core::{Gpus, Label, Requirement, Room, SchedulingOptions, WorkerOffer};

use super::{GIB, MINUTE, SECOND, Scenario, clock, line};
use crate::farm::{FarmSetup, Node, RunEnd, Shot, Timeline};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "TAGS",
        promise: "frames that ask for a tag go to the two machines that have it and to no other, and those do nothing else \
                  until they are done",
        farm: || {
            let mut nodes = vec![Node::new(1, 100); 6];
            nodes[..2]
                .iter_mut()
                .for_each(|node| node.offer.labels = BTreeSet::from([Label::from("tag fast-disk")]));
            let tagged = Requirement::from_iter(["tag fast-disk"]);
            let shots = vec![Shot::even(1, 30, 20 * SECOND).requires(tagged), Shot::even(2, 60, 20 * SECOND)];
            FarmSetup { nodes, shots, ..FarmSetup::default() }
        },
        judge: |_, timeline| {
            let right = timeline.of(1).all(|run| run.node < 2);
            let took = timeline.took_ms();
            // 90 frames on 6 slots are 5:00.
            line(
                right && took <= 6 * MINUTE,
                format!("all on the two with the tag; the farm is done at {}, of 5:00", clock(took)),
            )
        },
    },
    Scenario {
        name: "GPU",
        promise: "one slot a GPU, each its own; a frame that wants all GPUs of a machine has it alone on them; \
                  frames without go to the CPU beside them",
        farm: || {
            let gpu_box =
                WorkerOffer { slots: 6, cores: 24, gpus: vec![24 * GIB; 4], ..WorkerOffer::default() };
            let cpu_box = WorkerOffer { slots: 6, cores: 24, ..WorkerOffer::default() };
            let node = |offer: &WorkerOffer| Node { offer: offer.clone(), ..Node::new(6, 100) };
            let one = Gpus::Some { count: NonZeroU16::MIN, memory: 16 * GIB };
            let room =
                |gpus| Requirement { room: Room { gpus, ..Room::default() }, ..Requirement::default() };
            let shots = vec![
                Shot::even(1, 64, 20 * SECOND).requires(room(one)),
                Shot::even(2, 8, 20 * SECOND).requires(room(Gpus::All { memory: 0 })).at(30 * SECOND),
                Shot::even(3, 80, 20 * SECOND),
            ];
            FarmSetup {
                nodes: vec![node(&gpu_box), node(&gpu_box), node(&cpu_box)],
                shots,
                ..FarmSetup::default()
            }
        },
        judge: |_, timeline| {
            let sets =
                |job: u64, count: usize| timeline.of(job).all(|run| run.claim.gpus.iter().count() == count);
            let alone = (0..2).all(|node| {
                (0..4).all(|gpu| {
                    let on = |run: &&crate::farm::Run| run.node == node && run.claim.gpus.0 >> gpu & 1 == 1;
                    Timeline::most_at_once(timeline.runs.iter().filter(on).map(|run| (run.began, run.ended)))
                        == 1
                })
            });
            let took = timeline.took_ms();
            line(
                sets(1, 1) && sets(2, 4) && sets(3, 0) && alone && took <= 5 * MINUTE,
                format!(
                    "never two frames on a GPU; done at {}, of 4:00 that the GPUs alone need",
                    clock(took)
                ),
            )
        },
    },
    Scenario {
        name: "MEMORY",
        promise: "frames that need 40 of 64 GiB are soon rendered one at a time where two would not fit; one that \
                  needs 100 GiB ends on the machine that has it after one failure for lack of memory; nothing fails",
        farm: || {
            let offer = |memory: u64| WorkerOffer { slots: 2, cores: 16, memory, ..WorkerOffer::default() };
            let node = |memory| Node { offer: offer(memory * GIB), ..Node::new(2, 100) };
            let mut shot = Shot::even(1, 60, 20 * SECOND);
            shot.memory = vec![40 * GIB; 60];
            shot.memory[30] = 100 * GIB;
            FarmSetup {
                nodes: vec![node(64), node(64), node(256)],
                shots: vec![shot],
                ..FarmSetup::default()
            }
        },
        judge: |_, timeline| {
            let lacks = timeline.runs.iter().filter(|run| matches!(run.end, RunEnd::Failed(_))).count();
            let heavy =
                timeline.runs.iter().rev().find(|run| run.task.index.0 == 30 && run.end == RunEnd::Rendered);
            let took = timeline.took_ms();
            line(
                timeline.completed()
                    && heavy.is_some_and(|run| run.node == 2)
                    && lacks <= 6
                    && took <= 7 * MINUTE,
                format!("{lacks} of 60 frames ran out of memory once; done at {}, of 5:00", clock(took)),
            )
        },
    },
    Scenario {
        name: "MEMORY (nowhere)",
        promise: "a frame that ran out of memory alone on the largest machine fails at once and says so; the rest is done",
        farm: || {
            let offer = |memory: u64| WorkerOffer { slots: 2, cores: 16, memory, ..WorkerOffer::default() };
            let node = |memory| Node { offer: offer(memory * GIB), ..Node::new(2, 100) };
            let mut shot = Shot::even(1, 20, 20 * SECOND);
            shot.memory = vec![10 * GIB; 20];
            shot.memory[5] = 100 * GIB;
            FarmSetup { nodes: vec![node(64), node(32)], shots: vec![shot], ..FarmSetup::default() }
        },
        judge: |_, timeline| {
            let tries = timeline.of(1).filter(|run| run.task.index.0 == 5).count();
            let said = timeline.failed.values().next().cloned().unwrap_or_default();
            line(
                timeline.failed.len() == 1
                    && timeline.commits.len() == 19
                    && tries <= 3
                    && said.contains("memory"),
                format!("{tries} tries; “{said}”"),
            )
        },
    },
    Scenario {
        name: "RESERVATION",
        promise: "a frame that needs all of a machine's memory starts within a minute and a half, although another \
                  user's small ones of 20 s never stop coming",
        farm: || {
            let offer = WorkerOffer { slots: 4, cores: 16, memory: 64 * GIB, ..WorkerOffer::default() };
            let node = Node { offer, ..Node::new(4, 100) };
            let room =
                |memory| Requirement { room: Room { memory, ..Room::default() }, ..Requirement::default() };
            let of = |user: &str| SchedulingOptions { user: user.into(), ..SchedulingOptions::default() };
            // Frames of different lengths, so that slots are never free together.
            let small = Shot::new(1, (0..600).map(|n| (20 + n % 7) * SECOND).collect());
            let small = small.requires(room(10 * GIB)).scheduled(of("ada"));
            let big = Shot::even(2, 2, 60 * SECOND).requires(room(60 * GIB)).scheduled(of("bob"));
            let big = big.at(2 * MINUTE);
            FarmSetup { nodes: vec![node.clone(), node], shots: vec![small, big], ..FarmSetup::default() }
        },
        judge: |_, timeline| {
            let start = timeline.start_of(2).unwrap_or(u64::MAX).saturating_sub(2 * MINUTE);
            line(start <= 90 * SECOND && timeline.completed(), format!("{} after it came", clock(start)))
        },
    },
    Scenario {
        name: "LOCALITY",
        promise: "with 6 jobs of 6 users on 12 slots, no slot opens a scene more than twice as often as there are jobs",
        farm: || {
            let shots = (1..=6).map(|id| {
                let options =
                    SchedulingOptions { user: format!("user {id}"), ..SchedulingOptions::default() };
                Shot::even(id, 400, 3 * SECOND).opening(15 * SECOND).scheduled(options)
            });
            FarmSetup { nodes: vec![Node::new(2, 100); 6], shots: shots.collect(), ..FarmSetup::default() }
        },
        judge: |_, timeline| {
            let (opened, frames, took) = (timeline.openings(), timeline.commits.len(), timeline.took_ms());
            // All work on 12 slots is 10:00, without openings.
            line(
                opened <= 144 && took <= 15 * MINUTE,
                format!(
                    "{opened} openings for {frames} frames; done at {}, of 10:00 without any",
                    clock(took)
                ),
            )
        },
    },
];
