//! Sets of tasks kept as spans: their cost is that of their gaps.

use std::{collections::BTreeMap, fmt, ops::Bound, str::FromStr};

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
    /// The tasks 0 to `count` - 1.
    pub fn first(count: u32) -> Self {
        let mut set = Self::default();
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

    /// The last span that begins at `index` or before.
    fn span_from(&self, index: u32) -> Option<(u32, u32)> {
        self.spans.range(..=index).next_back().map(|(first, last)| (*first, *last))
    }

    pub fn contains(&self, index: TaskIndex) -> bool {
        self.span_from(index.0).is_some_and(|(_, last)| last >= index.0)
    }

    /// Returns whether the set has every member of `other`. The cost is that of the spans of `other`.
    pub fn contains_all(&self, other: &Self) -> bool {
        let has = |span: TaskSpan| self.span_from(span.first.0).is_some_and(|(_, last)| last >= span.last.0);
        other.spans().all(has)
    }

    pub fn highest(&self) -> Option<TaskIndex> {
        self.spans.last_key_value().map(|(_, last)| TaskIndex(*last))
    }

    /// The lowest member that is not below `index`.
    pub fn at_or_after(&self, index: TaskIndex) -> Option<TaskIndex> {
        if self.contains(index) {
            return Some(index);
        }
        self.spans.range(index.0..).next().map(|(first, _)| TaskIndex(*first))
    }

    /// The highest member that is not above `index`.
    pub fn at_or_before(&self, index: TaskIndex) -> Option<TaskIndex> {
        self.span_from(index.0).map(|(_, last)| TaskIndex(index.0.min(last)))
    }

    pub fn spans(&self) -> impl Iterator<Item = TaskSpan> {
        self.spans.iter().map(|(first, last)| TaskSpan { first: TaskIndex(*first), last: TaskIndex(*last) })
    }

    pub fn iter(&self) -> impl Iterator<Item = TaskIndex> {
        self.spans().flat_map(TaskSpan::iter)
    }

    /// Returns whether the task was new.
    pub fn insert(&mut self, index: TaskIndex) -> bool {
        let before = self.len;
        self.insert_span(TaskSpan::one(index));
        self.len > before
    }

    /// Returns whether the task was in the set.
    pub fn remove(&mut self, index: TaskIndex) -> bool {
        let before = self.len;
        self.remove_span(TaskSpan::one(index));
        self.len < before
    }

    pub fn insert_span(&mut self, span: TaskSpan) {
        let (mut first, mut last) = (span.first.0, span.last.0);
        // Join every span that touches this one, from the last backwards.
        while let Some((f, l)) = self.span_from(last.saturating_add(1))
            && l.saturating_add(1) >= first
        {
            self.len -= l - f + 1;
            last = last.max(l);
            if f <= first {
                // The span grows in place; none before it touches.
                first = f;
                break;
            }
            self.spans.remove(&f);
        }
        self.spans.insert(first, last);
        self.len += last - first + 1;
    }

    pub fn remove_span(&mut self, span: TaskSpan) {
        let (first, last) = (span.first.0, span.last.0);
        while let Some((f, l)) = self.span_from(last)
            && l >= first
        {
            self.spans.remove(&f);
            self.len -= l.min(last) - f.max(first) + 1;
            let left = (f < first).then(|| (f, first - 1));
            let right = (l > last).then(|| (last + 1, l));
            self.spans.extend(left.into_iter().chain(right));
            if f <= first {
                break;
            }
        }
    }

    /// Removes the members of `other`.
    pub fn subtract(&mut self, other: &Self) {
        other.spans().for_each(|span| self.remove_span(span));
    }

    /// The tasks that are in both sets. The cost is that of the set with fewer spans and of the spans that it meets.
    pub fn intersection(&self, other: &Self) -> Self {
        let (few, many) = if self.spans.len() < other.spans.len() { (self, other) } else { (other, self) };
        let mut both = Self::default();
        for TaskSpan { first, last } in few.spans() {
            let before = many.spans.range(..=last.0).rev();
            for (low, high) in before.take_while(|(_, high)| **high >= first.0) {
                let (first, last) = (first.max(TaskIndex(*low)), last.min(TaskIndex(*high)));
                both.insert_span(TaskSpan { first, last });
            }
        }
        both
    }

    /// Adds the members of `other`.
    pub fn merge(&mut self, other: &Self) {
        if self.is_empty() {
            self.clone_from(other);
        } else {
            other.spans().for_each(|span| self.insert_span(span));
        }
    }
}

impl FromIterator<TaskIndex> for IndexSet {
    fn from_iter<I: IntoIterator<Item = TaskIndex>>(indexes: I) -> Self {
        let mut set = Self::default();
        set.extend(indexes);
        set
    }
}

impl Extend<TaskIndex> for IndexSet {
    fn extend<I: IntoIterator<Item = TaskIndex>>(&mut self, indexes: I) {
        indexes.into_iter().for_each(|index| self.insert_span(TaskSpan::one(index)));
    }
}

impl fmt::Display for IndexSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for TaskSpan { first, last } in self.spans() {
            write!(f, "{comma}{first}")?;
            if last != first {
                write!(f, "-{last}")?;
            }
            comma = ",";
        }
        Ok(())
    }
}

impl fmt::Debug for IndexSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

/// The error of a text that is no set of tasks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("“{0}” is not a set of tasks; write it like 0-99,120")]
pub struct BadIndexSet(String);

impl FromStr for IndexSet {
    type Err = BadIndexSet;

    fn from_str(text: &str) -> Result<Self, BadIndexSet> {
        let mut set = Self::default();
        for part in text.split(',').filter(|_| !text.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            match (first.parse().map(TaskIndex), last.parse().map(TaskIndex)) {
                (Ok(first), Ok(last)) if first <= last && last.0 < MAX_TASKS => {
                    set.insert_span(TaskSpan { first, last });
                }
                _ => return Err(BadIndexSet(text.chars().take(64).collect())),
            }
        }
        Ok(set)
    }
}

/// The generation of each task of a step, at first 0. Neighbours of one generation share an entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Generations {
    /// The generation from this task up to the next entry.
    from: BTreeMap<TaskIndex, Generation>,
}

impl Generations {
    pub fn get(&self, index: TaskIndex) -> Generation {
        self.from.range(..=index).next_back().map_or(Generation(0), |(_, generation)| *generation)
    }

    pub fn set(&mut self, span: TaskSpan, generation: Generation) {
        let after = TaskIndex(span.last.0.saturating_add(1));
        let next = self.get(after);
        self.from.extract_if(span.first..=after, |_, _| true).for_each(drop);
        for (index, generation) in [(span.first, generation), (after, next)] {
            if self.get(index) != generation {
                self.from.insert(index, generation);
            }
        }
    }

    /// The parts of the span, each of one generation.
    pub fn pieces(&self, span: TaskSpan) -> Vec<(TaskSpan, Generation)> {
        let mut pieces = Vec::new();
        let mut first = span.first;
        for (cut, _) in self.from.range((Bound::Excluded(span.first), Bound::Included(span.last))) {
            pieces.push((TaskSpan { first, last: TaskIndex(cut.0 - 1) }, self.get(first)));
            first = *cut;
        }
        pieces.push((TaskSpan { first, last: span.last }, self.get(first)));
        pieces
    }
}
