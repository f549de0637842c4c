//! The failures of a step's first tasks.

use std::collections::{BTreeMap, BTreeSet};

use kiln_types::{FailureCause, TaskIndex, WorkerId};

use crate::tuning::common_failure::WAYS;

/// The ways in which tasks of a step have failed, as long as none of it was delivered.
#[derive(Debug, Default)]
pub(crate) struct FirstFailures {
    /// A task was delivered.
    is_closed: bool,
    ways: BTreeMap<(FailureCause, String), Way>,
}

/// The tasks that have failed alike.
#[derive(Debug, Default, Clone)]
pub(crate) struct Way {
    pub tasks: BTreeSet<TaskIndex>,
    pub workers: BTreeSet<WorkerId>,
    pub attempts: usize,
}

impl FirstFailures {
    /// Returns whether no task was delivered.
    pub fn is_open(&self) -> bool {
        !self.is_closed
    }

    /// Returns whether some tasks have failed and none was delivered.
    pub fn have_all_failed(&self) -> bool {
        !self.ways.is_empty()
    }

    /// A task is delivered: whatever fails from now on, the job can be rendered.
    pub fn close(&mut self) {
        self.is_closed = true;
        self.ways.clear();
    }

    /// A person has asked for another try.
    pub fn forget(&mut self) {
        self.ways.clear();
    }

    /// Takes note of a failure on these workers, and returns all that failed alike. `says` is what is compared.
    pub fn note(
        &mut self,
        task: TaskIndex,
        workers: &[WorkerId],
        cause: FailureCause,
        says: &str,
    ) -> Option<&Way> {
        if self.is_closed {
            return None;
        }
        let key = (cause, essence(says));
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

/// The message without what differs from one attempt to the next: numbers, and the folders of paths.
fn essence(message: &str) -> String {
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
    use super::essence;

    #[test]
    fn what_differs_from_one_attempt_to_the_next_is_left_out() {
        let one = essence("cannot write /tmp/kiln/1-204/out/0007.png (error 28)");
        let other = essence("cannot write /tmp/kiln/1-9/out/0112.png (error 28)");
        assert_eq!(one, other);
        assert_eq!(one, "cannot write #.png (error #)");
        assert_ne!(essence("Build without OpenImageDenoiser"), essence("Build without Embree"));
    }
}
