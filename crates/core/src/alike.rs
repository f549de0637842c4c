//! A job whose first tasks all fail alike: it stops before each of them has failed on every worker.

use std::collections::{BTreeMap, BTreeSet};

use kiln_types::{Failure, FailureCause, TaskId, TaskIndex, WorkerId};

use crate::{Core, job::Step};

/// Tasks of a step that must have failed alike, and attempts in all where the step has only two; workers on which they
/// did, where so many would take it. A single task is not a job that fails alike: it fails.
const TASKS: usize = 3;
const ATTEMPTS: usize = 3;
const WORKERS: usize = 2;
/// Ways to fail that are kept apart; one more is forgotten.
const WAYS: usize = 16;

/// How tasks of a step have failed, as long as none of it was delivered.
#[derive(Debug, Default)]
pub(crate) struct Firsts {
    /// One was.
    closed: bool,
    ways: BTreeMap<(FailureCause, String), Way>,
}

#[derive(Debug, Default)]
struct Way {
    tasks: BTreeSet<TaskIndex>,
    workers: BTreeSet<WorkerId>,
    attempts: usize,
}

impl Firsts {
    pub fn is_open(&self) -> bool {
        !self.closed
    }

    /// Some have failed, and none was delivered.
    pub fn all_failed(&self) -> bool {
        !self.ways.is_empty()
    }

    /// A task is delivered: whatever fails from now on, the job can be rendered.
    pub fn close(&mut self) {
        self.closed = true;
        self.ways.clear();
    }

    /// A person has asked for another try.
    pub fn forget(&mut self) {
        self.ways.clear();
    }

    fn note(&mut self, task: TaskIndex, workers: &[WorkerId], failure: &Failure, says: &str) -> Option<&Way> {
        if self.closed {
            return None;
        }
        let key = (failure.cause, alike(says));
        if self.ways.len() >= WAYS && !self.ways.contains_key(&key) {
            return None;
        }
        let way = self.ways.entry(key).or_default();
        way.tasks.insert(task);
        way.workers.extend(workers);
        way.attempts += workers.len();
        Some(way)
    }
}

impl Core {
    /// Takes note of a failure on these workers, and says whether the job should stop: which tasks have failed alike,
    /// and why it stops, in words. `says` is what makes failures alike.
    pub(crate) fn fails_as_others_did(
        &mut self,
        task: TaskId,
        workers: &[WorkerId],
        failure: &Failure,
        says: &str,
    ) -> Option<(Vec<TaskId>, Failure)> {
        let step = self.step_mut(task)?;
        let (need, least) = (step.need, TASKS.min(step.plan.count as usize));
        let way = step.firsts.note(task.index, workers, failure, says)?;
        if way.tasks.len() < least.max(2) || way.attempts < ATTEMPTS {
            return None;
        }
        let (tasks, failed_on) = (way.tasks.clone(), way.workers.clone());
        let others = self.willing(need) - failed_on.iter().filter(|id| self.is_willing(**id, need)).count();
        let enough = failed_on.len() >= WORKERS || others == 0;
        // A fault of the worker says nothing of what others would do; and who is at work will soon tell.
        let may_differ = others > 0 && failure.cause.blames_worker();
        if !enough || may_differ || self.others_are_at_it(task, &failed_on) {
            return None;
        }
        let on = match failed_on.len() {
            1 => "one worker".to_owned(),
            many => format!("{many} workers"),
        };
        let message = format!("the first {} frames failed alike on {on}: {}", tasks.len(), failure.message);
        let reason = Failure { message, ..failure.clone() };
        let tasks = tasks.into_iter().map(|index| TaskId { index, ..task }).collect();
        Some((tasks, reason))
    }

    /// Whether a worker on which the step has not failed so has begun a task of it.
    fn others_are_at_it(&self, task: TaskId, failed_on: &BTreeSet<WorkerId>) -> bool {
        let attempts = self.step(task).into_iter().flat_map(Step::attempts);
        attempts
            .filter_map(|id| self.attempts.get(&id))
            .any(|attempt| attempt.phase.has_begun() && !failed_on.contains(&attempt.worker))
    }
}

/// The message without what differs from one attempt to the next: numbers, and the folders of paths.
fn alike(message: &str) -> String {
    let words = message.split_whitespace().map(|word| {
        let word = word.rsplit(['/', '\\']).next().unwrap_or(word);
        let mut plain = String::with_capacity(word.len());
        for letter in word.chars() {
            let letter = if letter.is_ascii_digit() { '#' } else { letter };
            if letter != '#' || !plain.ends_with('#') {
                plain.push(letter);
            }
        }
        plain
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::alike;

    #[test]
    fn what_differs_from_one_attempt_to_the_next_is_left_out() {
        let one = alike("cannot write /tmp/kiln/1-204/out/0007.png (error 28)");
        let other = alike("cannot write /tmp/kiln/1-9/out/0112.png (error 28)");
        assert_eq!(one, other);
        assert_eq!(one, "cannot write #.png (error #)");
        assert_ne!(alike("Build without OpenImageDenoiser"), alike("Build without Embree"));
    }
}
