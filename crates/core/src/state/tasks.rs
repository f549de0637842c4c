//! The tasks of a step. Each is in exactly one of eight states, and only the operations here change that:
//!
//! | operation | from | to |
//! |---|---|---|
//! | [`Tasks::dispatch`] | waiting | live |
//! | [`Tasks::speculate`] | live | live, with a second attempt |
//! | [`Tasks::stream`] | waiting, blocked | streaming |
//! | [`Tasks::place_stream`] | streaming, with its frames | live |
//! | [`Tasks::stream_again`] | live, with one attempt | streaming |
//! | [`Tasks::close`] | live | live, if it has another attempt; else waiting |
//! | | streaming | waiting, or blocked if it lacks frames |
//! | [`Tasks::finish`] | waiting | done |
//! | [`Tasks::fail`] | waiting, blocked | failed |
//! | [`Tasks::cancel_waiting`] | waiting, blocked | cancelled |
//! | [`Tasks::block`] | waiting | blocked |
//! | [`Tasks::unblock`] | blocked | waiting |
//! | [`Tasks::reset_ended`] | failed, cancelled | waiting |
//! | [`Tasks::reset_done`] | done | waiting, in the next generation |
//! | [`Tasks::outdate`] | done, and waiting tasks that are named | waiting, in the next generation |
//!
//! Any other transition is a broken invariant. A blocked task waits for tasks of other steps and may not be dispatched; one
//! that streams may wait for them too, as [`Tasks::block`] and [`Tasks::unblock`] note. A task with mishaps waits apart
//! from the others, because not every worker should get it; its failure history is forgotten when it ends or is reset.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
};

use kiln_types::{AttemptId, Generation, Order, TaskIndex};

use super::{
    history::FailureHistory,
    order::OrderKey,
    streams::{Stream, StreamingTasks},
    waiting::WaitingTasks,
};
use crate::{DependencyEnd, Generations, IndexSet, TaskCounts, TaskSpan, ids::StepRef, invariant::broken};

/// The tasks 0 to `count` - 1 of a step. Those that wait or have ended are kept as spans and cost next to nothing.
#[derive(Debug)]
pub(crate) struct Tasks {
    of: StepRef,
    order: Order,
    count: u32,
    /// Waiting tasks without mishaps.
    waiting: WaitingTasks,
    /// Waiting tasks with mishaps.
    retry: BTreeSet<OrderKey>,
    blocked: IndexSet,
    live: BTreeMap<TaskIndex, Live>,
    /// Speculative attempts of live tasks.
    second: BTreeMap<TaskIndex, Live>,
    streaming: StreamingTasks,
    /// The number of first attempts that have begun.
    running: u32,
    ended: EndedTasks,
    histories: BTreeMap<TaskIndex, FailureHistory>,
}

#[derive(Debug, Clone, Copy)]
struct Live {
    attempt: AttemptId,
    begun: bool,
}

/// The state of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TaskPlace {
    Waiting,
    Blocked,
    /// With its first attempt.
    Live(AttemptId),
    Streaming(AttemptId),
    Done,
    Failed,
    Cancelled,
}

/// The stored part of a step's tasks: those that have ended, and the generations of all.
#[derive(Debug, Default)]
pub(crate) struct EndedTasks {
    pub done: IndexSet,
    pub failed: IndexSet,
    pub cancelled: IndexSet,
    pub generations: Generations,
}

impl Tasks {
    /// Tasks that all wait.
    pub fn new(of: StepRef, order: Order, count: u32) -> Self {
        Self {
            of,
            order,
            count,
            waiting: WaitingTasks::all(order, count),
            retry: BTreeSet::new(),
            blocked: IndexSet::default(),
            live: BTreeMap::new(),
            second: BTreeMap::new(),
            streaming: StreamingTasks::default(),
            running: 0,
            ended: EndedTasks::default(),
            histories: BTreeMap::new(),
        }
    }

    /// Restores a step of an earlier epoch. The tasks that have not ended wait.
    ///
    /// # Errors
    /// If a task is in two states or does not exist.
    pub fn restore(&mut self, stored: EndedTasks) -> Result<(), &'static str> {
        let sets = [&stored.done, &stored.failed, &stored.cancelled];
        let mut ended = IndexSet::default();
        sets.iter().for_each(|set| ended.merge(set));
        if u64::from(ended.len()) != sets.iter().map(|set| u64::from(set.len())).sum::<u64>() {
            return Err("a task is in two states at once");
        }
        if ended.highest().is_some_and(|index| index.0 >= self.count) {
            return Err("a task is beyond the end of its step");
        }
        self.waiting.subtract(&ended);
        self.ended = stored;
        Ok(())
    }

    /// Dispatches a waiting task.
    #[track_caller]
    pub fn dispatch(&mut self, task: TaskIndex, attempt: AttemptId) {
        self.take_waiting(task, "dispatched");
        self.live.insert(task, Live { attempt, begun: false });
    }

    /// Adds a second attempt to a live task that has one.
    #[track_caller]
    pub fn speculate(&mut self, task: TaskIndex, attempt: AttemptId) {
        let second = Live { attempt, begun: false };
        if !self.live.contains_key(&task) || self.second.insert(task, second).is_some() {
            self.reject(task, "does not run just once and is speculated on");
        }
    }

    /// Dispatches a waiting or blocked task as a stream.
    #[track_caller]
    pub fn stream(&mut self, task: TaskIndex, attempt: AttemptId) {
        let has_frames = !self.blocked.remove(task);
        if has_frames {
            self.take_waiting(task, "streamed");
        }
        self.streaming.insert(task, Stream { attempt, has_frames });
    }

    /// Places a task that streams on a slot.
    #[track_caller]
    pub fn place_stream(&mut self, task: TaskIndex) {
        match self.streaming.remove(task) {
            Some(Stream { attempt, has_frames: true }) => {
                self.live.insert(task, Live { attempt, begun: false });
            }
            _ => self.reject(task, "does not stream with its frames and is placed"),
        }
    }

    /// Makes a live task stream again that was placed and has not begun: its worker was not told.
    #[track_caller]
    pub fn stream_again(&mut self, task: TaskIndex) {
        match self.live.remove(&task) {
            Some(Live { attempt, begun: false }) if !self.second.contains_key(&task) => {
                self.streaming.insert(task, Stream { attempt, has_frames: true });
            }
            _ => self.reject(task, "does not run just once and streams again"),
        }
    }

    /// Sets whether a live attempt has begun.
    #[track_caller]
    pub fn set_begun(&mut self, task: TaskIndex, attempt: AttemptId, begun: bool) {
        if let Some(first) = self.live.get_mut(&task).filter(|first| first.attempt == attempt) {
            self.running = self.running - u32::from(first.begun) + u32::from(begun);
            first.begun = begun;
        } else if let Some(second) = self.second.get_mut(&task).filter(|second| second.attempt == attempt) {
            second.begun = begun;
        } else {
            self.reject(task, format_args!("has no attempt {attempt} that begins"));
        }
    }

    /// Takes an attempt off its task. Another attempt is the first one from then on; without one, the task waits.
    #[track_caller]
    pub fn close(&mut self, task: TaskIndex, attempt: AttemptId) {
        if self.second.get(&task).is_some_and(|second| second.attempt == attempt) {
            self.second.remove(&task);
            return;
        }
        if self.streaming.get(task).is_some_and(|stream| stream.attempt == attempt) {
            match self.streaming.remove(task) {
                Some(Stream { has_frames: false, .. }) => drop(self.blocked.insert(task)),
                _ => self.put_waiting(task),
            }
            return;
        }
        let Some(first) = self.live.remove(&task).filter(|first| first.attempt == attempt) else {
            self.reject(task, format_args!("has no attempt {attempt} to close"));
        };
        self.running -= u32::from(first.begun);
        match self.second.remove(&task) {
            Some(second) => {
                self.running += u32::from(second.begun);
                self.live.insert(task, second);
            }
            None => self.put_waiting(task),
        }
    }

    /// Ends a waiting task as done; returns its history.
    #[track_caller]
    pub fn finish(&mut self, task: TaskIndex) -> FailureHistory {
        self.take_waiting(task, "finished");
        self.ended.done.insert(task);
        self.histories.remove(&task).unwrap_or_default()
    }

    /// Ends a waiting or blocked task as failed; returns its history.
    #[track_caller]
    pub fn fail(&mut self, task: TaskIndex) -> FailureHistory {
        if !self.blocked.remove(task) {
            self.take_waiting(task, "failed");
        }
        self.ended.failed.insert(task);
        self.histories.remove(&task).unwrap_or_default()
    }

    /// Blocks the waiting tasks of `which`.
    pub fn block(&mut self, which: &IndexSet) {
        let fresh = self.waiting.set().intersection(which);
        if !fresh.is_empty() {
            self.waiting.subtract(&fresh);
            self.blocked.merge(&fresh);
        }
        let retry = self.retry.extract_if(.., |key| which.contains(key.index));
        self.blocked.extend(retry.map(|key| key.index));
        self.streaming.set_frames(which, false);
    }

    /// Unblocks the blocked tasks of `which`, which then wait.
    pub fn unblock(&mut self, which: &IndexSet) {
        let mut freed = self.blocked.intersection(which);
        self.blocked.subtract(&freed);
        let with_mishaps =
            self.histories.iter().filter(|(task, known)| freed.contains(**task) && known.has_mishaps());
        let retry: Vec<OrderKey> = with_mishaps.map(|(task, _)| self.waiting.key(*task)).collect();
        for key in &retry {
            freed.remove(key.index);
        }
        self.retry.extend(retry);
        self.waiting.merge(&freed);
        self.streaming.set_frames(which, true);
    }

    /// Cancels every task that waits or is blocked; returns whether there was one.
    pub fn cancel_waiting(&mut self) -> bool {
        let any = self.waiting_len() + self.blocked.len() > 0;
        self.ended.cancelled.merge(&self.waiting.take());
        self.ended.cancelled.merge(&std::mem::take(&mut self.blocked));
        self.ended.cancelled.extend(std::mem::take(&mut self.retry).into_iter().map(|key| key.index));
        any
    }

    /// Forgets every failure history; returns the expired attempts of these.
    pub fn forget_histories(&mut self) -> Vec<AttemptId> {
        let histories = std::mem::take(&mut self.histories);
        histories.values().flat_map(FailureHistory::expired).copied().collect()
    }

    /// Lets failed and cancelled tasks of `which` wait again; returns them.
    pub fn reset_ended(&mut self, which: &IndexSet) -> IndexSet {
        let mut ended = self.ended.failed.intersection(which);
        ended.merge(&self.ended.cancelled.intersection(which));
        self.ended.failed.subtract(&ended);
        self.ended.cancelled.subtract(&ended);
        self.waiting.merge(&ended);
        ended
    }

    /// Lets done tasks of `which` wait again, in their next generation; returns them.
    pub fn reset_done(&mut self, which: &IndexSet) -> IndexSet {
        let done = self.ended.done.intersection(which);
        self.ended.done.subtract(&done);
        self.waiting.merge(&done);
        for span in done.spans() {
            for (piece, generation) in self.generations(span) {
                self.ended.generations.set(piece, Generation(generation.0.saturating_add(1)));
            }
        }
        done
    }

    /// Outdates tasks of `which`, whose input has changed: those that are done, and waiting ones of `begun` that were begun
    /// with the old input, wait in their next generation without a history. Returns them and their expired attempts.
    #[track_caller]
    pub fn outdate(&mut self, which: &IndexSet, begun: &IndexSet) -> (IndexSet, Vec<AttemptId>) {
        let mut expired = Vec::new();
        for task in begun.iter() {
            self.take_waiting(task, "outdated");
            let history = self.histories.remove(&task).unwrap_or_default();
            expired.extend(history.expired());
            self.ended.done.insert(task);
        }
        (self.reset_done(which), expired)
    }

    /// Adds waiting tasks at the end, up to `count`. The order is that of the grown step.
    pub fn grow(&mut self, count: u32) {
        self.waiting.grow(self.order, self.count, count);
        self.count = count;
        self.retry = self.retry.iter().map(|key| self.waiting.key(key.index)).collect();
    }

    /// Changes the history of a task that waits or is live.
    #[track_caller]
    pub fn update_history<T>(&mut self, task: TaskIndex, update: impl FnOnce(&mut FailureHistory) -> T) -> T {
        let waits = match self.place(task) {
            Some(TaskPlace::Waiting) => true,
            Some(TaskPlace::Live(_) | TaskPlace::Streaming(_) | TaskPlace::Blocked) => false,
            _ => self.reject(task, "has ended and its history changes"),
        };
        if waits {
            self.take_waiting(task, "changed");
        }
        let history = self.histories.entry(task).or_default();
        let answer = update(history);
        if history.is_empty() {
            self.histories.remove(&task);
        }
        if waits {
            self.put_waiting(task);
        }
        answer
    }

    fn put_waiting(&mut self, task: TaskIndex) {
        if self.has_mishaps(task) {
            self.retry.insert(self.waiting.key(task));
        } else {
            self.waiting.insert(task);
        }
    }

    #[track_caller]
    fn take_waiting(&mut self, task: TaskIndex, what: &str) {
        if !self.retry.remove(&self.waiting.key(task)) && !self.waiting.remove(task) {
            self.reject(task, format_args!("does not wait and is {what}"));
        }
    }

    /// The state of a task; `None` if the step has no such task.
    pub fn place(&self, task: TaskIndex) -> Option<TaskPlace> {
        if task.0 >= self.count {
            return None;
        }
        if let Some(first) = self.live.get(&task) {
            return Some(TaskPlace::Live(first.attempt));
        }
        if let Some(stream) = self.streaming.get(task) {
            return Some(TaskPlace::Streaming(stream.attempt));
        }
        let EndedTasks { done, failed, cancelled, .. } = &self.ended;
        let sets = [
            (&self.blocked, TaskPlace::Blocked),
            (done, TaskPlace::Done),
            (failed, TaskPlace::Failed),
            (cancelled, TaskPlace::Cancelled),
        ];
        let known = sets.into_iter().find(|(set, _)| set.contains(task));
        Some(known.map_or(TaskPlace::Waiting, |(_, place)| place))
    }

    /// The next waiting task in the step's order; `may` returns whether one with mishaps may be taken. With `fresh_first`,
    /// those come after all others.
    pub fn next(&self, fresh_first: bool, may: impl Fn(&FailureHistory) -> bool) -> Option<TaskIndex> {
        let allowed = |key: &&OrderKey| self.histories.get(&key.index).is_none_or(&may);
        let retry = self.retry.iter().take(crate::tuning::CANDIDATES).find(allowed).copied();
        let fresh = self.waiting.first();
        let next = if fresh_first { fresh.or(retry) } else { fresh.into_iter().chain(retry).min() };
        next.map(|key| key.index)
    }

    /// The first waiting task without mishaps.
    pub fn first_fresh(&self) -> Option<TaskIndex> {
        self.waiting.first().map(|key| key.index)
    }

    /// The waiting tasks with mishaps, in the step's order.
    pub fn retries(&self) -> impl Iterator<Item = TaskIndex> {
        self.retry.iter().map(|key| key.index)
    }

    /// Each live task with its first attempt.
    pub fn live(&self) -> impl Iterator<Item = (TaskIndex, AttemptId)> {
        self.live.iter().map(|(task, first)| (*task, first.attempt))
    }

    /// All attempts: the first ones, the speculative ones and the streams.
    pub fn attempts(&self) -> impl Iterator<Item = AttemptId> {
        let on_slots = self.live.values().chain(self.second.values()).map(|live| live.attempt);
        on_slots.chain(self.streaming.iter().map(|(_, stream)| stream.attempt))
    }

    pub fn streaming(&self) -> &StreamingTasks {
        &self.streaming
    }

    /// The first attempt of a task, where it is live.
    pub fn first_attempt(&self, task: TaskIndex) -> Option<AttemptId> {
        self.live.get(&task).map(|first| first.attempt)
    }

    /// The first attempt of a task, or the one that streams.
    pub fn any_attempt(&self, task: TaskIndex) -> Option<AttemptId> {
        let streaming = || self.streaming.get(task).map(|stream| stream.attempt);
        self.first_attempt(task).or_else(streaming)
    }

    /// The speculative attempt of a task.
    pub fn second_attempt(&self, task: TaskIndex) -> Option<AttemptId> {
        self.second.get(&task).map(|second| second.attempt)
    }

    pub fn is_live(&self, task: TaskIndex) -> bool {
        self.live.contains_key(&task)
    }

    pub fn history(&self, task: TaskIndex) -> Option<&FailureHistory> {
        self.histories.get(&task)
    }

    /// The histories of all tasks that have one.
    pub fn histories(&self) -> impl Iterator<Item = (TaskIndex, &FailureHistory)> {
        self.histories.iter().map(|(task, history)| (*task, history))
    }

    fn has_mishaps(&self, task: TaskIndex) -> bool {
        self.histories.get(&task).is_some_and(FailureHistory::has_mishaps)
    }

    pub fn generation(&self, task: TaskIndex) -> Generation {
        self.ended.generations.get(task)
    }

    /// The span cut where the generation changes.
    pub fn generations(&self, span: TaskSpan) -> Vec<(TaskSpan, Generation)> {
        self.ended.generations.pieces(span)
    }

    pub fn count(&self) -> u32 {
        self.count
    }

    pub fn done(&self) -> &IndexSet {
        &self.ended.done
    }

    /// The waiting tasks, with and without mishaps.
    pub fn waiting(&self) -> IndexSet {
        let mut waiting = self.waiting.set().clone();
        waiting.extend(self.retries());
        waiting
    }

    pub fn blocked(&self) -> &IndexSet {
        &self.blocked
    }

    /// The tasks that have reached this end.
    pub fn reached(&self, end: DependencyEnd) -> Cow<'_, IndexSet> {
        let EndedTasks { done, failed, cancelled, .. } = &self.ended;
        if end == DependencyEnd::Done || failed.is_empty() && cancelled.is_empty() {
            return Cow::Borrowed(done);
        }
        let mut ended = done.clone();
        ended.merge(failed);
        ended.merge(cancelled);
        Cow::Owned(ended)
    }

    /// Returns whether these tasks have reached this end.
    pub fn have_reached(&self, end: DependencyEnd, tasks: &IndexSet) -> bool {
        let EndedTasks { done, failed, cancelled, .. } = &self.ended;
        let has_ended =
            |task| end == DependencyEnd::Ended && (failed.contains(task) || cancelled.contains(task));
        tasks.iter().all(|task| done.contains(task) || has_ended(task))
    }

    /// Returns whether every task has reached this end.
    pub fn have_all_reached(&self, end: DependencyEnd) -> bool {
        let EndedTasks { done, failed, cancelled, .. } = &self.ended;
        let ended = if end == DependencyEnd::Ended { failed.len() + cancelled.len() } else { 0 };
        done.len() + ended == self.count
    }

    pub fn cancelled(&self) -> &IndexSet {
        &self.ended.cancelled
    }

    pub fn live_len(&self) -> u32 {
        self.live.len() as u32
    }

    /// The number of waiting tasks, with and without mishaps.
    pub fn waiting_len(&self) -> u32 {
        self.waiting.len() + self.retry.len() as u32
    }

    pub fn are_all_done(&self) -> bool {
        self.ended.done.len() == self.count
    }

    pub fn counts(&self) -> TaskCounts {
        TaskCounts {
            total: self.count,
            waiting: self.waiting_len() + self.blocked.len() + self.streaming.len(),
            assigned: self.live_len() - self.running,
            running: self.running,
            done: self.ended.done.len(),
            failed: self.ended.failed.len(),
            cancelled: self.ended.cancelled.len(),
        }
    }

    /// The number of spans of waiting tasks.
    #[cfg(test)]
    pub fn waiting_spans(&self) -> usize {
        self.waiting.set().spans().count()
    }

    /// Panics because of an operation that the task's state does not allow.
    #[track_caller]
    fn reject(&self, task: TaskIndex, why: impl Display) -> ! {
        broken(self.of.job, format_args!("task {} {why}", self.of.task(task)))
    }

    /// Panics if the sets contradict each other. For tests.
    pub fn check(&self, has_begun: impl Fn(AttemptId) -> bool) {
        let name = format!("step {}.{}", self.of.job, self.of.step);
        let live: IndexSet = self.live.keys().copied().collect();
        let retry: IndexSet = self.retry.iter().map(|key| key.index).collect();
        let streaming: IndexSet = self.streaming.iter().map(|(task, _)| task).collect();
        let EndedTasks { done, failed, cancelled, .. } = &self.ended;
        let sets = [self.waiting.set(), &retry, &self.blocked, &live, &streaming, done, failed, cancelled];
        let mut all = IndexSet::default();
        sets.iter().for_each(|set| all.merge(set));
        let total: u32 = sets.iter().map(|set| set.len()).sum();
        assert_eq!(total, self.count, "{name}: a task is in two states, or in none");
        assert_eq!(all, IndexSet::first(self.count), "{name}: a task is in no state");
        self.waiting.check(&name);
        for key in &self.retry {
            assert_eq!(*key, self.waiting.key(key.index), "{name}: a retry has another task's place");
            assert!(self.has_mishaps(key.index), "{name}.{} is a retry without mishaps", key.index);
        }
        for (task, history) in self.histories() {
            let fresh = self.waiting.set().contains(task);
            assert!(!(fresh && history.has_mishaps()), "{name}.{task} has mishaps and waits without");
            let goes_on =
                fresh || [&retry, &live, &streaming, &self.blocked].iter().any(|set| set.contains(task));
            assert!(goes_on, "{name}.{task} has ended with a history");
        }
        assert!(self.second.keys().all(|task| live.contains(*task)), "{name}: a second attempt has no first");
        for (task, Live { attempt, begun }) in self.live.iter().chain(&self.second) {
            assert_eq!(*begun, has_begun(*attempt), "{name}.{task}: {attempt} has begun or not");
        }
        let running = self.live.values().filter(|first| first.begun).count();
        assert_eq!(self.running as usize, running, "{name} miscounts its running tasks");
    }
}
