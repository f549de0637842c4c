//! The failures of a step's first tasks.

use std::collections::{BTreeMap, BTreeSet};

use kiln_types::{FailureCause, TaskIndex, WorkerId};

use crate::tuning::common_failure::GROUPS;

/// The failures of tasks of a step until the first delivery, grouped by likeness.
#[derive(Debug, Default)]
pub(crate) struct FirstFailures {
    /// A task was delivered.
    is_closed: bool,
    groups: BTreeMap<(FailureCause, String), FailureGroup>,
}

/// The tasks that have failed alike.
#[derive(Debug, Default, Clone)]
pub(crate) struct FailureGroup {
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
        !self.groups.is_empty()
    }

    /// Stops at the first delivery, which shows that the job can be rendered.
    pub fn close(&mut self) {
        self.is_closed = true;
        self.groups.clear();
    }

    /// Forgets the failures when a person retries.
    pub fn forget(&mut self) {
        self.groups.clear();
    }

    /// Notes a failure on these workers, and returns its group, which has the same cause and a similar `message`.
    pub fn note(
        &mut self,
        task: TaskIndex,
        workers: &[WorkerId],
        cause: FailureCause,
        message: &str,
    ) -> Option<&FailureGroup> {
        if self.is_closed {
            return None;
        }
        let key = (cause, normalize(message));
        if self.groups.len() >= GROUPS && !self.groups.contains_key(&key) {
            return None;
        }
        let group = self.groups.entry(key).or_default();
        group.tasks.insert(task);
        group.workers.extend(workers);
        group.attempts += workers.len();
        Some(group)
    }
}

/// The message without the parts that differ between attempts: numbers, and the folders of paths.
fn normalize(message: &str) -> String {
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
    use super::normalize;

    #[test]
    fn numbers_and_folders_are_left_out() {
        let one = normalize("cannot write /tmp/kiln/1-204/out/0007.png (error 28)");
        let other = normalize("cannot write /tmp/kiln/1-9/out/0112.png (error 28)");
        assert_eq!(one, other);
        assert_eq!(one, "cannot write #.png (error #)");
        assert_ne!(normalize("Build without OpenImageDenoiser"), normalize("Build without Embree"));
    }
}
