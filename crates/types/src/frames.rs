//! Frame ranges as artists write them: `1-10,20,30-40x2`, `50-41`, `-5--1`.

use std::{fmt, str::FromStr};

use crate::pattern::{digits_to, one_to};

/// The lowest frame of Blender (`MINAFRAME` in its source).
pub const MIN_FRAME: i32 = -1_048_574;
/// The highest frame of Blender (`MAXFRAME` in its source).
pub const MAX_FRAME: i32 = 1_048_574;
/// The most tasks of one step: one for every frame number of Blender.
pub const MAX_TASKS: u32 = MAX_FRAME.abs_diff(MIN_FRAME) + 1;

/// The frames `first`, `first ± step`, ... up to and with `last`; descending if `last < first`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameSpan {
    first: i32,
    last: i32,
    /// At least 1, and divides the distance between the ends.
    step: i32,
}

impl FrameSpan {
    /// Moves the last frame back to one that the steps meet. A step below 1 counts as 1.
    fn new(first: i32, last: i32, step: i32) -> Self {
        let step = step.max(1);
        let whole = (last - first) / step * step;
        let last = first + whole;
        Self { first, last, step: if whole == 0 { 1 } else { step } }
    }
    fn count(self) -> u32 {
        (self.last.abs_diff(self.first)) / self.step.unsigned_abs() + 1
    }
    fn get(self, index: u32) -> i32 {
        let distance = index as i32 * self.step;
        if self.last < self.first { self.first - distance } else { self.first + distance }
    }
    fn index_of(self, frame: i32) -> Option<u32> {
        let (low, high) = (self.first.min(self.last), self.first.max(self.last));
        let distance = frame.abs_diff(self.first);
        let step = self.step.unsigned_abs();
        ((low..=high).contains(&frame) && distance.is_multiple_of(step)).then(|| distance / step)
    }
}

/// Frames in the order of the request, each once; never empty. Stored as spans: a million frames take a few bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameSet {
    spans: Vec<FrameSpan>,
    count: u32,
}
crate::ids::text_id!(FrameSet, pattern(), "1-250");

/// The pattern of the texts that [`FrameSet::from_str`] takes.
fn pattern() -> String {
    let most = u64::from(MAX_FRAME.unsigned_abs());
    let (frame, step) = (format!("-?{}", digits_to(most)), format!("0*{}", one_to(most)));
    let item = format!(" *{frame}(-{frame}(x{step})?)? *");
    format!("{item}(,{item})*")
}

/// The reason why a text is no frame range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameSetError {
    #[error("the frame range is empty; write it like 1-250 or 1-10,20,30-40x2")]
    Empty,
    #[error("“{0}” is not a frame or a range of frames; write it like 1-250 or 1-10,20,30-40x2")]
    Malformed(String),
    #[error("frame {0} is outside what Blender can render ({MIN_FRAME} to {MAX_FRAME})")]
    OutOfBounds(String),
    #[error(
        "the frame range names frames more than {} times; split it into several jobs",
        FrameSet::MOST_NAMED
    )]
    TooMany,
}

impl FrameSet {
    /// Frames that a text may name, repeated ones (`1-10,5`) included; bounds the work of reading it.
    const MOST_NAMED: u64 = 32 * MAX_TASKS as u64;

    pub fn range(first: i32, last: i32, step: u32) -> Result<Self, FrameSetError> {
        for frame in [first, last] {
            in_bounds(i64::from(frame))?;
        }
        let step = i32::try_from(step).unwrap_or(i32::MAX);
        Self::from_spans(vec![FrameSpan::new(first, last, step)])
    }

    /// Makes a set of frames in any order; drops later duplicates.
    pub fn from_frames(frames: impl IntoIterator<Item = i32>) -> Result<Self, FrameSetError> {
        let mut seen = Seen::default();
        let mut kept = Vec::new();
        for frame in frames {
            in_bounds(i64::from(frame))?;
            if seen.insert(frame) {
                kept.push(frame);
            }
            if kept.len() > MAX_TASKS as usize {
                return Err(FrameSetError::TooMany);
            }
        }
        let spans = compress(&kept);
        Self::of_unique(spans)
    }

    /// Drops frames of an earlier span.
    fn from_spans(spans: Vec<FrameSpan>) -> Result<Self, FrameSetError> {
        let total: u64 = spans.iter().map(|span| u64::from(span.count())).sum();
        if total > Self::MOST_NAMED {
            return Err(FrameSetError::TooMany);
        }
        if let [_] = spans[..] {
            return Self::of_unique(spans);
        }
        let mut seen = Seen::default();
        let all = |span: &FrameSpan| {
            (0..span.count()).map({
                let span = *span;
                move |i| span.get(i)
            })
        };
        let repeats = spans.iter().flat_map(all).any(|frame| !seen.insert(frame));
        if repeats { Self::from_frames(spans.iter().flat_map(all)) } else { Self::of_unique(spans) }
    }

    fn of_unique(spans: Vec<FrameSpan>) -> Result<Self, FrameSetError> {
        let count = spans.iter().map(|span| u64::from(span.count())).sum::<u64>();
        match u32::try_from(count) {
            Ok(0) => Err(FrameSetError::Empty),
            Ok(count) if count <= MAX_TASKS => Ok(Self { spans, count }),
            _ => Err(FrameSetError::TooMany),
        }
    }

    /// Returns the number of frames; at least 1, at most [`MAX_TASKS`].
    #[expect(clippy::len_without_is_empty, reason = "a frame set is never empty")]
    pub fn len(&self) -> u32 {
        self.count
    }

    /// The frame at this position.
    pub fn get(&self, mut index: u32) -> Option<i32> {
        for span in &self.spans {
            if index < span.count() {
                return Some(span.get(index));
            }
            index -= span.count();
        }
        None
    }

    /// The position of this frame.
    pub fn index_of(&self, frame: i32) -> Option<u32> {
        let mut before = 0;
        for span in &self.spans {
            if let Some(index) = span.index_of(frame) {
                return Some(before + index);
            }
            before += span.count();
        }
        None
    }

    pub fn iter(&self) -> impl Iterator<Item = i32> + '_ {
        self.spans.iter().flat_map(|span| (0..span.count()).map(move |index| span.get(index)))
    }

    /// Returns these frames, followed by those of `more` that are not among them. Positions stay the same.
    pub fn extended(&self, more: &Self) -> Result<Self, FrameSetError> {
        let fresh: Vec<i32> = more.iter().filter(|frame| self.index_of(*frame).is_none()).collect();
        let mut spans = self.spans.clone();
        spans.extend(compress(&fresh));
        Self::of_unique(spans)
    }
}

/// The frames that were seen: one bit each.
struct Seen(Vec<u64>);

impl Default for Seen {
    fn default() -> Self {
        Self(vec![0; (MAX_FRAME.abs_diff(MIN_FRAME) as usize + 1).div_ceil(64)])
    }
}

impl Seen {
    /// Returns whether the frame is new. Takes frames in bounds only.
    fn insert(&mut self, frame: i32) -> bool {
        let bit = frame.abs_diff(MIN_FRAME) as usize;
        let (word, mask) = (&mut self.0[bit / 64], 1 << (bit % 64));
        let new = *word & mask == 0;
        *word |= mask;
        new
    }
}

/// Joins frames into spans, greedily.
fn compress(frames: &[i32]) -> Vec<FrameSpan> {
    let mut spans = Vec::new();
    let mut rest = frames;
    while let [first, tail @ ..] = rest {
        let Some(next) = tail.first() else {
            spans.push(FrameSpan::new(*first, *first, 1));
            break;
        };
        let distance = next - first;
        let run = rest.windows(2).take_while(|pair| pair[1] - pair[0] == distance).count();
        // Two frames far apart are not a range: they would print as 3-10x7.
        let run = if run == 1 && distance.abs() != 1 { 0 } else { run };
        spans.push(FrameSpan::new(*first, rest[run], distance.abs()));
        rest = &rest[run + 1..];
    }
    spans
}

fn in_bounds(frame: i64) -> Result<i32, FrameSetError> {
    match i32::try_from(frame) {
        Ok(frame) if (MIN_FRAME..=MAX_FRAME).contains(&frame) => Ok(frame),
        _ => Err(FrameSetError::OutOfBounds(frame.to_string())),
    }
}

impl FromStr for FrameSet {
    type Err = FrameSetError;

    fn from_str(text: &str) -> Result<Self, FrameSetError> {
        if text.trim_matches(' ').is_empty() {
            return Err(FrameSetError::Empty);
        }
        let mut spans = Vec::new();
        for item in text.split(',') {
            spans.push(parse_span(item.trim_matches(' '))?);
            if spans.len() > MAX_TASKS as usize {
                return Err(FrameSetError::TooMany);
            }
        }
        Self::from_spans(spans)
    }
}

fn parse_span(item: &str) -> Result<FrameSpan, FrameSetError> {
    let malformed = || FrameSetError::Malformed(item.chars().take(40).collect());
    let (range, step) = match item.split_once('x') {
        Some((range, step)) => (range, Some(step)),
        None => (item, None),
    };
    // The dash of a range is the first one behind a digit: all others are signs.
    let dash = range.char_indices().skip(1).find(|(_, c)| *c == '-').map(|(at, _)| at);
    let (first, last) = match dash {
        Some(at) => (&range[..at], Some(&range[at + 1..])),
        None => (range, None),
    };
    let first = parse_frame(first).ok_or_else(malformed)??;
    let Some(last) = last else {
        return if step.is_none() { Ok(FrameSpan::new(first, first, 1)) } else { Err(malformed()) };
    };
    let last = parse_frame(last).ok_or_else(malformed)??;
    let step = match step {
        None => 1,
        Some(text) => match parse_frame(text).ok_or_else(malformed)?? {
            step if step >= 1 => step,
            _ => return Err(malformed()),
        },
    };
    Ok(FrameSpan::new(first, last, step))
}

/// Returns `None` if the text is not a number.
fn parse_frame(text: &str) -> Option<Result<i32, FrameSetError>> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let out = || FrameSetError::OutOfBounds(text.chars().take(24).collect());
    Some(text.parse::<i64>().map_err(|_| out()).and_then(|frame| in_bounds(frame).map_err(|_| out())))
}

impl fmt::Display for FrameSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, span) in self.spans.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            write!(f, "{}", span.first)?;
            if span.last != span.first {
                write!(f, "-{}", span.last)?;
            }
            if span.step != 1 {
                write!(f, "x{}", span.step)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames(text: &str) -> Vec<i32> {
        text.parse::<FrameSet>().unwrap().iter().collect()
    }

    #[test]
    fn reads_what_artists_write() {
        assert_eq!(frames("1-3,20,30-36x2"), [1, 2, 3, 20, 30, 32, 34, 36]);
        assert_eq!(frames("50-47"), [50, 49, 48, 47]);
        assert_eq!(frames("-5--3"), [-5, -4, -3]);
        assert_eq!(frames("-1-1"), [-1, 0, 1]);
        assert_eq!(frames("10-1x4"), [10, 6, 2]);
        assert_eq!(frames(" 7 , 3 "), [7, 3]);
        assert_eq!(frames("1-5,3,2-6"), [1, 2, 3, 4, 5, 6]);
        assert_eq!(frames("1-10x100"), [1]);
    }

    #[test]
    fn refuses_the_rest() {
        use FrameSetError::*;
        let check = |text: &str, want: fn(&FrameSetError) -> bool| {
            let error = text.parse::<FrameSet>().unwrap_err();
            assert!(want(&error), "{text}: {error:?}");
        };
        for text in ["", "  "] {
            check(text, |e| matches!(e, Empty));
        }
        for text in [
            ",", "1,", "a", "1-", "-", "1--", "1-5x", "1-5x0", "1-5x-1", "5x2", "1..3", "1-2-3", "+1", "１",
            "1\t", "\n",
        ] {
            check(text, |e| matches!(e, Malformed(_)));
        }
        for text in ["1-2000000000", "1048575", "-1048575", "1-99999999999999999999999"] {
            check(text, |e| matches!(e, OutOfBounds(_)));
        }
        check(&["1-1048574"; 65].join(","), |e| matches!(e, TooMany));
        assert_eq!(frames("-1048574-1048574").len(), MAX_TASKS as usize);
    }

    #[test]
    fn a_million_frames_are_a_few_bytes() {
        let set = FrameSet::range(1, 1_000_000, 1).unwrap();
        assert_eq!(set.len(), 1_000_000);
        assert_eq!(set.spans.len(), 1);
        assert_eq!((set.get(999_999), set.get(1_000_000)), (Some(1_000_000), None));
    }

    proptest! {
        #[test]
        fn display_parses_back(frames in prop::collection::vec(-50..50, 1..60)) {
            let set = FrameSet::from_frames(frames.iter().copied()).unwrap();
            let again: FrameSet = set.to_string().parse().unwrap();
            prop_assert!(set.iter().eq(again.iter()), "{set} {again}");
        }

        #[test]
        fn positions_and_frames_agree(frames in prop::collection::vec(-50..50, 1..60)) {
            let set = FrameSet::from_frames(frames).unwrap();
            for (at, frame) in set.iter().enumerate() {
                prop_assert_eq!(set.get(at as u32), Some(frame));
                prop_assert_eq!(set.index_of(frame), Some(at as u32));
            }
            prop_assert_eq!(set.iter().count() as u32, set.len());
        }

        #[test]
        fn extending_keeps_positions(a in prop::collection::vec(-20..20, 1..20), b in prop::collection::vec(-20..20, 1..20)) {
            let (a, b) = (FrameSet::from_frames(a).unwrap(), FrameSet::from_frames(b).unwrap());
            let both = a.extended(&b).unwrap();
            for (at, frame) in a.iter().enumerate() {
                prop_assert_eq!(both.get(at as u32), Some(frame));
            }
            prop_assert!(b.iter().all(|frame| both.index_of(frame).is_some()));
        }

        #[test]
        fn never_panics(text in "[-0-9x, ]{0,24}") {
            let _ = text.parse::<FrameSet>();
        }
    }
}
