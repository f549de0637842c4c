//! Sets of tasks kept as spans, so that a million tasks cost what their gaps cost.

use std::{collections::BTreeMap, fmt, str::FromStr};

use kiln_types::{Generation, MAX_TASKS, TaskIndex};

/// Tasks `first` to `last` of one step, both ends included; never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskSpan {
    pub first: TaskIndex,
    pub last: TaskIndex,
}

impl TaskSpan {
    pub fn one(index: TaskIndex) -> Self {
        Self { first: index, last: index }
    }

    pub fn iter(self) -> impl DoubleEndedIterator<Item = TaskIndex> {
        (self.first.0..=self.last.0).map(TaskIndex)
    }
}

/// A set of tasks of one step. Prints as `0-99,120` and parses from it; the empty set is the empty text.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct IndexSet {
    /// First to last, both included; neighbouring spans are always joined.
    spans: BTreeMap<u32, u32>,
    len: u32,
}

impl IndexSet {
    pub fn new() -> Self {
        Self::default()
    }

    /// Tasks 0 to `count` - 1.
    pub fn first(count: u32) -> Self {
        let mut set = Self::new();
        if let Some(last) = count.checked_sub(1) {
            set.spans.insert(0, last);
            set.len = count;
        }
        set
    }

    pub fn len(&self) -> u32 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn contains(&self, index: TaskIndex) -> bool {
        self.spans.range(..=index.0).next_back().is_some_and(|(_, last)| *last >= index.0)
    }

    pub fn lowest(&self) -> Option<TaskIndex> {
        self.spans.first_key_value().map(|(first, _)| TaskIndex(*first))
    }

    pub fn highest(&self) -> Option<TaskIndex> {
        self.spans.last_key_value().map(|(_, last)| TaskIndex(*last))
    }

    /// The lowest that is not below `index`.
    pub fn at_or_after(&self, index: TaskIndex) -> Option<TaskIndex> {
        if self.contains(index) {
            return Some(index);
        }
        self.spans.range(index.0..).next().map(|(first, _)| TaskIndex(*first))
    }

    /// The highest that is not above `index`.
    pub fn at_or_before(&self, index: TaskIndex) -> Option<TaskIndex> {
        let (_, last) = self.spans.range(..=index.0).next_back()?;
        Some(TaskIndex(index.0.min(*last)))
    }

    pub fn spans(&self) -> impl Iterator<Item = TaskSpan> {
        self.spans.iter().map(|(first, last)| TaskSpan { first: TaskIndex(*first), last: TaskIndex(*last) })
    }

    pub fn iter(&self) -> impl Iterator<Item = TaskIndex> {
        self.spans().flat_map(TaskSpan::iter)
    }

    /// Whether it was new.
    pub fn insert(&mut self, index: TaskIndex) -> bool {
        let index = index.0;
        let before = self.spans.range(..=index).next_back().map(|(first, last)| (*first, *last));
        if before.is_some_and(|(_, last)| last >= index) {
            return false;
        }
        let after = index.checked_add(1).and_then(|next| self.spans.remove(&next));
        let last = after.unwrap_or(index);
        match before {
            Some((first, end)) if end + 1 == index => self.spans.insert(first, last),
            _ => self.spans.insert(index, last),
        };
        self.len += 1;
        true
    }

    /// Whether it was there.
    pub fn remove(&mut self, index: TaskIndex) -> bool {
        let index = index.0;
        let Some((first, last)) = self.spans.range(..=index).next_back().map(|(f, l)| (*f, *l)) else {
            return false;
        };
        if last < index {
            return false;
        }
        if first == index {
            self.spans.remove(&first);
        } else {
            self.spans.insert(first, index - 1);
        }
        if last > index {
            self.spans.insert(index + 1, last);
        }
        self.len -= 1;
        true
    }

    pub fn insert_span(&mut self, span: TaskSpan) {
        let (mut first, mut last) = (span.first.0, span.last.0);
        // Swallow every span that touches this one, from the last backwards.
        while let Some((f, l)) =
            self.spans.range(..=last.saturating_add(1)).next_back().map(|(f, l)| (*f, *l))
        {
            if l.saturating_add(1) < first {
                break;
            }
            self.spans.remove(&f);
            self.len -= l - f + 1;
            first = first.min(f);
            last = last.max(l);
        }
        self.spans.insert(first, last);
        self.len += last - first + 1;
    }

    pub fn remove_span(&mut self, span: TaskSpan) {
        let (first, last) = (span.first.0, span.last.0);
        while let Some((f, l)) = self.spans.range(..=last).next_back().map(|(f, l)| (*f, *l)) {
            if l < first {
                break;
            }
            self.spans.remove(&f);
            self.len -= l - f + 1;
            let left = (f < first).then(|| (f, first - 1));
            let right = (l > last).then(|| (last + 1, l));
            for (f, l) in left.into_iter().chain(right) {
                self.spans.insert(f, l);
                self.len += l - f + 1;
            }
        }
    }

    /// All but those of `other`.
    pub fn subtract(&mut self, other: &Self) {
        for span in other.spans() {
            self.remove_span(span);
        }
    }

    /// Those that are in both. Few spans among many cost what they meet.
    pub fn intersection(&self, other: &Self) -> Self {
        let (few, many) = if self.spans.len() < other.spans.len() { (self, other) } else { (other, self) };
        let mut both = Self::new();
        for span in few.spans() {
            let (low, high) = (span.first.0, span.last.0);
            // The one that begins before this span may reach into it.
            let from = many.spans.range(..=low).next_back().map_or(low, |(first, _)| *first);
            for (first, last) in many.spans.range(from..=high).filter(|(_, last)| **last >= low) {
                let (first, last) = (TaskIndex(low.max(*first)), TaskIndex(high.min(*last)));
                both.insert_span(TaskSpan { first, last });
            }
        }
        both
    }

    /// All of `other` too.
    pub fn merge(&mut self, other: &Self) {
        if self.is_empty() {
            self.clone_from(other);
            return;
        }
        for span in other.spans() {
            self.insert_span(span);
        }
    }
}

impl FromIterator<TaskIndex> for IndexSet {
    fn from_iter<I: IntoIterator<Item = TaskIndex>>(indexes: I) -> Self {
        let mut set = Self::new();
        set.extend(indexes);
        set
    }
}

impl Extend<TaskIndex> for IndexSet {
    fn extend<I: IntoIterator<Item = TaskIndex>>(&mut self, indexes: I) {
        for index in indexes {
            self.insert(index);
        }
    }
}

impl fmt::Display for IndexSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, span) in self.spans().enumerate() {
            if number > 0 {
                f.write_str(",")?;
            }
            write!(f, "{}", span.first)?;
            if span.last != span.first {
                write!(f, "-{}", span.last)?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for IndexSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

/// A text that is no set of tasks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("“{0}” is not a set of tasks; write it like 0-99,120")]
pub struct BadIndexSet(String);

impl FromStr for IndexSet {
    type Err = BadIndexSet;

    fn from_str(text: &str) -> Result<Self, BadIndexSet> {
        let bad = || BadIndexSet(text.chars().take(64).collect());
        let mut set = Self::new();
        for part in text.split(',').filter(|_| !text.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first: u32 = first.parse().map_err(|_| bad())?;
            let last: u32 = last.parse().map_err(|_| bad())?;
            if first > last || last >= MAX_TASKS {
                return Err(bad());
            }
            set.insert_span(TaskSpan { first: TaskIndex(first), last: TaskIndex(last) });
        }
        Ok(set)
    }
}

/// The generation of each task of a step: 0 until raised. Neighbours of one generation are kept together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Generations {
    /// From this task on, this generation, up to the next entry. Before the first entry: 0.
    from: BTreeMap<u32, u32>,
}

impl Generations {
    pub fn get(&self, index: TaskIndex) -> Generation {
        Generation(self.from.range(..=index.0).next_back().map_or(0, |(_, generation)| *generation))
    }

    pub fn set(&mut self, span: TaskSpan, generation: Generation) {
        let end = span.last.0.checked_add(1);
        let after = end.map(|end| (end, self.get(TaskIndex(end)).0));
        let before = span.first.0.checked_sub(1).map_or(0, |index| self.get(TaskIndex(index)).0);
        let inside: Vec<u32> = self.from.range(span.first.0..=span.last.0).map(|(first, _)| *first).collect();
        for first in inside {
            self.from.remove(&first);
        }
        if generation.0 != before {
            self.from.insert(span.first.0, generation.0);
        }
        if let Some((end, next)) = after {
            if next == generation.0 {
                self.from.remove(&end);
            } else {
                self.from.insert(end, next);
            }
        }
    }

    /// The span cut where the generation changes.
    pub fn pieces(&self, span: TaskSpan) -> Vec<(TaskSpan, Generation)> {
        let mut pieces = Vec::new();
        let mut first = span.first;
        let cuts = self
            .from
            .range((std::ops::Bound::Excluded(span.first.0), std::ops::Bound::Included(span.last.0)));
        for (cut, _) in cuts {
            pieces.push((TaskSpan { first, last: TaskIndex(cut - 1) }, self.get(first)));
            first = TaskIndex(*cut);
        }
        pieces.push((TaskSpan { first, last: span.last }, self.get(first)));
        pieces
    }
}
