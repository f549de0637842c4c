//! Orders compared with their definitions, and the cost of waiting in order.

use std::{collections::BTreeSet, num::NonZeroU32};

use kiln_types::{AttemptId, Epoch, Failure, FailureCause, JobId, MAX_TASKS, Order, StepIndex, TaskIndex};
use proptest::prelude::*;

use super::w;
use crate::{
    IndexSet,
    ids::StepRef,
    state::{
        FailureHistory, Tasks,
        order::{FrameOrder, LOOKS},
    },
};

fn every(nth: u32) -> Order {
    Order::Every(NonZeroU32::new(nth).unwrap())
}

fn step(order: Order, count: u32) -> Tasks {
    Tasks::new(StepRef { job: JobId(1), step: StepIndex(0) }, order, count)
}

/// The one attempt of each task.
fn attempt(task: TaskIndex) -> AttemptId {
    AttemptId { epoch: Epoch(1), counter: u64::from(task.0) + 1 }
}

fn next(step: &Tasks) -> Option<TaskIndex> {
    step.next(false, |_| true)
}

fn take(step: &mut Tasks, task: TaskIndex) {
    step.dispatch(task, attempt(task));
}

fn put_back(step: &mut Tasks, task: TaskIndex) {
    step.close(task, attempt(task));
}

/// Takes everything in the step's order.
fn drain(step: &mut Tasks) -> Vec<u32> {
    std::iter::from_fn(|| {
        let next = next(step)?;
        take(step, next);
        Some(next.0)
    })
    .collect()
}

/// The order as a person would say it.
fn said(order: Order, count: u32) -> Vec<u32> {
    let all = || 0..count;
    match order {
        Order::Sequential => all().collect(),
        Order::Reverse => all().rev().collect(),
        Order::Every(nth) => {
            let is_nth = |index: &u32| index.is_multiple_of(nth.get());
            all().filter(is_nth).chain(all().filter(|index| !is_nth(index))).collect()
        }
        Order::Coarse => {
            let end = u64::from(count) - 1;
            let mut said = Vec::new();
            let mut seen = BTreeSet::new();
            for level in 0.. {
                let parts = 1u64 << level;
                let points = (0..=parts).map(|part| (part * end / parts) as u32);
                said.extend(points.filter(|index| seen.insert(*index)));
                if said.len() == count as usize {
                    break;
                }
            }
            said
        }
    }
}

#[test]
fn a_preview_shows_the_first_the_last_the_middle_and_then_halves_the_gaps() {
    let coarse = |count| drain(&mut step(Order::Coarse, count));
    assert_eq!(coarse(1), [0]);
    assert_eq!(coarse(2), [0, 1]);
    assert_eq!(coarse(3), [0, 2, 1]);
    assert_eq!(coarse(4), [0, 3, 1, 2]);
    assert_eq!(coarse(9), [0, 8, 4, 2, 6, 1, 3, 5, 7]);
    assert_eq!(coarse(250)[..9], [0, 249, 124, 62, 186, 31, 93, 155, 217]);
}

#[test]
fn every_nth_comes_first_and_the_rest_in_one_pass() {
    let every = |nth, count| drain(&mut step(every(nth), count));
    assert_eq!(every(4, 10), [0, 4, 8, 1, 2, 3, 5, 6, 7, 9]);
    assert_eq!(every(2, 5), [0, 2, 4, 1, 3]);
    assert_eq!(every(1, 4), [0, 1, 2, 3]);
    assert_eq!(every(u32::MAX, 4), [0, 1, 2, 3]);
}

#[test]
fn a_task_that_comes_back_is_dispatched_in_its_place() {
    let mut step = step(Order::Coarse, 9);
    for index in [0, 8, 4, 2, 6] {
        assert_eq!(next(&step), Some(TaskIndex(index)));
        take(&mut step, TaskIndex(index));
    }
    put_back(&mut step, TaskIndex(6));
    put_back(&mut step, TaskIndex(8));
    assert_eq!(drain(&mut step), [8, 6, 1, 3, 5, 7]);
}

#[test]
fn a_grown_step_goes_on_in_the_order_of_its_new_length() {
    let mut step = step(Order::Coarse, 9);
    for index in [0, 8, 4] {
        take(&mut step, TaskIndex(index));
    }
    step.grow(17);
    assert_eq!(drain(&mut step), [16, 12, 2, 6, 10, 14, 1, 3, 5, 7, 9, 11, 13, 15]);
}

/// On the way, half a million tasks wait with a gap beside each: the worst that a set of spans can be.
#[test]
fn a_decision_among_a_million_takes_two_looks_on_average() {
    for order in [Order::Coarse, every(10)] {
        let mut step = step(order, MAX_TASKS);
        LOOKS.set(0);
        let (mut decisions, mut came_back) = (0u64, 0);
        while let Some(next) = next(&step) {
            take(&mut step, next);
            decisions += 1;
            // Now and then something long past is returned.
            let past = TaskIndex(next.0 / 2);
            if decisions.is_multiple_of(16) && came_back < MAX_TASKS / 16 && step.is_live(past) {
                came_back += 1;
                put_back(&mut step, past);
            }
        }
        let looks = LOOKS.get();
        println!("{order}: {decisions} decisions, {looks} looks");
        assert!(decisions >= u64::from(MAX_TASKS));
        let (tasks, passes) = (u64::from(MAX_TASKS), 21);
        assert!(looks <= 2 * tasks + passes, "{order}: {looks} looks for {tasks} tasks");
    }
}

#[test]
fn reopening_costs_what_is_reopened() {
    let mut step = step(Order::Coarse, MAX_TASKS);
    let half: Vec<u32> = said(Order::Coarse, MAX_TASKS)[..MAX_TASKS as usize / 2].to_vec();
    for index in &half {
        step.finish(TaskIndex(*index));
    }
    LOOKS.set(0);
    for index in &half[..1000] {
        assert_eq!(step.reset_done(&IndexSet::from_iter([TaskIndex(*index)])).len(), 1);
        assert_eq!(next(&step), Some(TaskIndex(*index)));
        take(&mut step, TaskIndex(*index));
    }
    assert_eq!(LOOKS.get(), 0, "a frame rendered again needs no walk");
}

pub fn orders() -> impl Strategy<Value = Order> {
    prop_oneof![
        1 => Just(Order::Sequential),
        1 => Just(Order::Reverse),
        3 => Just(Order::Coarse),
        2 => (1u32..12).prop_map(every),
    ]
}

/// An event of a step.
#[derive(Debug, Clone)]
enum Event {
    /// The next is taken, and ends or comes back later.
    Take,
    /// A task at this place of those that are out comes back, returned or failed.
    Back {
        which: usize,
        failed: bool,
    },
    /// A waiting task at this place is taken out of turn.
    Pick {
        which: usize,
    },
    /// One that is out is done.
    Done {
        which: usize,
    },
    /// These are rendered again where they are done.
    Reopen {
        first: u32,
        last: u32,
    },
    Grow {
        more: u32,
    },
    Cancel,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        12 => Just(Event::Take),
        3 => (0usize..64, any::<bool>()).prop_map(|(which, failed)| Event::Back { which, failed }),
        2 => (0usize..64).prop_map(|which| Event::Pick { which }),
        6 => (0usize..64).prop_map(|which| Event::Done { which }),
        1 => (0u32..80, 0u32..40).prop_map(|(first, more)| Event::Reopen { first, last: first + more }),
        1 => (1u32..20).prop_map(|more| Event::Grow { more }),
        1 => Just(Event::Cancel),
    ];
    prop::collection::vec(event, 1..200)
}

proptest! {
    #[test]
    fn an_order_dispatches_each_task_once_by_its_definition(order in orders(), count in 1u32..2000) {
        let drained = drain(&mut step(order, count));
        prop_assert_eq!(&drained, &said(order, count));
        let (all, each) = (0..count).zip(drained.iter().copied().collect::<BTreeSet<_>>()).unzip();
        let (all, each): (Vec<u32>, Vec<u32>) = (all, each);
        prop_assert_eq!(all, each);
    }

    #[test]
    fn a_preview_of_any_length_leaves_even_gaps(count in 3u32..=MAX_TASKS, level in 1u32..12) {
        let parts = 1usize << level;
        prop_assume!(parts < count as usize / 2);
        let mut step = step(Order::Coarse, count);
        let mut shown = BTreeSet::new();
        for number in 0..=parts {
            let next = next(&step).unwrap();
            match number {
                0 => prop_assert_eq!(next.0, 0),
                1 => prop_assert_eq!(next.0, count - 1),
                2 => prop_assert_eq!(next.0, (count - 1) / 2),
                _ => {}
            }
            take(&mut step, next);
            prop_assert!(shown.insert(next.0));
        }
        let shown: Vec<u32> = shown.into_iter().collect();
        let widest = shown.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        prop_assert!(widest <= (count - 1).div_ceil(parts as u32), "{}", widest);
    }

    #[test]
    fn a_task_of_any_step_is_found_by_its_key(
        order in orders(),
        count in 1u32..=MAX_TASKS,
        place in any::<prop::sample::Index>(),
    ) {
        let frame_order = FrameOrder::new(order, count);
        let key = frame_order.key(TaskIndex(place.index(count as usize) as u32));
        let mut all = IndexSet::first(count);
        prop_assert_eq!(frame_order.first_in(&all, key), Some(key));
        all.remove(key.index);
        if let Some(after) = frame_order.first_in(&all, key) {
            prop_assert!(key < after);
            prop_assert_eq!(frame_order.key(after.index), after);
        }
    }

    #[test]
    fn the_next_is_the_first_of_those_that_wait(order in orders(), count in 1u32..60, events in events()) {
        let mut step = step(order, count);
        let mut waiting: BTreeSet<u32> = (0..count).collect();
        let mut failed = BTreeSet::new();
        let mut out: Vec<u32> = Vec::new();
        for event in events {
            // Of those that have failed, this slot may take the even ones.
            let may_take = |index: u32, failed: &BTreeSet<u32>| !failed.contains(&index) || index.is_multiple_of(2);
            match event {
                Event::Take => {
                    let model = said(order, step.count()).into_iter();
                    let model = model.filter(|i| waiting.contains(i)).find(|i| may_take(*i, &failed));
                    let is_even = |history: &FailureHistory| history.failed_on().iter().all(|on| *on == w(2));
                    let next = step.next(false, is_even).map(|index| index.0);
                    prop_assert_eq!(next, model);
                    if let Some(next) = next {
                        take(&mut step, TaskIndex(next));
                        waiting.remove(&next);
                        out.push(next);
                    }
                }
                Event::Back { which, failed: fails } if !out.is_empty() => {
                    let index = out.swap_remove(which % out.len());
                    if fails {
                        failed.insert(index);
                        let (task, on) = (TaskIndex(index), w(2 - u64::from(index % 2)));
                        let failure = Failure::new(FailureCause::Crashed, "it went wrong");
                        step.update_history(task, |history| history.note_failure(attempt(task), on, failure));
                    }
                    put_back(&mut step, TaskIndex(index));
                    waiting.insert(index);
                }
                Event::Pick { which } if !waiting.is_empty() => {
                    let index = *waiting.iter().nth(which % waiting.len()).unwrap();
                    take(&mut step, TaskIndex(index));
                    waiting.remove(&index);
                    out.push(index);
                }
                Event::Done { which } if !out.is_empty() => {
                    let index = out.swap_remove(which % out.len());
                    put_back(&mut step, TaskIndex(index));
                    failed.remove(&index);
                    step.finish(TaskIndex(index));
                }
                Event::Reopen { first, last } => {
                    let which: IndexSet = (first..=last).map(TaskIndex).collect();
                    let mut reset = step.reset_done(&which);
                    reset.merge(&step.reset_ended(&which));
                    waiting.extend(reset.iter().map(|index| index.0));
                }
                Event::Grow { more } => {
                    let count = step.count();
                    step.grow(count + more);
                    waiting.extend(count..count + more);
                }
                Event::Cancel => {
                    // As when a job ends: nothing is out then.
                    for index in std::mem::take(&mut out) {
                        put_back(&mut step, TaskIndex(index));
                        waiting.insert(index);
                    }
                    prop_assert_eq!(step.cancel_waiting(), !waiting.is_empty());
                    step.forget_histories();
                    waiting.clear();
                    failed.clear();
                }
                _ => {}
            }
            step.check(|_| false);
            prop_assert_eq!(step.waiting_len() as usize, waiting.len());
        }
    }
}
