//! A walk of the user in which every action follows every other.

use std::{collections::BTreeMap, fmt};

/// An action of the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    Submit,
    Render,
    Local,
    Edit,
    Texture,
    Move,
    Cancel,
    Close,
    Restart,
    Settings,
    Fetch,
    Elsewhere,
    Delete,
    Touch,
}

impl Action {
    pub const ALL: &[Self] = &[
        Self::Submit,
        Self::Render,
        Self::Local,
        Self::Edit,
        Self::Texture,
        Self::Move,
        Self::Cancel,
        Self::Close,
        Self::Restart,
        Self::Settings,
        Self::Fetch,
        Self::Elsewhere,
        Self::Delete,
        Self::Touch,
    ];
    /// Steps of a walk in which each ordered pair occurs once: each but the first makes a pair with the one before.
    pub const CIRCUIT: usize = Self::ALL.len() * Self::ALL.len() + 1;
}

/// Numbers from a seed, the same on every machine.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Splitmix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    /// Returns true in this percentage of calls.
    pub fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// One of these, or nothing where there is none.
    pub fn some<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| self.pick(from).clone())
    }

    fn shuffle<T>(&mut self, what: &mut [T]) {
        for end in (1..what.len()).rev() {
            what.swap(end, self.below(end + 1));
        }
    }
}

/// A closed walk through all actions that takes each ordered pair, an action after itself too, exactly once: a path of
/// Euler through the complete graph, by Hierholzer.
pub fn circuit(seed: u64) -> Vec<Action> {
    let mut rng = Rng::new(seed);
    let mut to_come: Vec<Vec<Action>> = Action::ALL
        .iter()
        .map(|_| {
            let mut after = Action::ALL.to_vec();
            rng.shuffle(&mut after);
            after
        })
        .collect();
    let mut open = vec![*rng.pick(Action::ALL)];
    let mut walk = Vec::new();
    while let Some(at) = open.last() {
        match to_come[*at as usize].pop() {
            Some(next) => open.push(next),
            None => walk.extend(open.pop()),
        }
    }
    walk.reverse();
    walk
}

/// The number of times that each action came right after each other.
#[derive(Clone, Copy)]
pub struct Pairs([[u32; Action::ALL.len()]; Action::ALL.len()]);

impl Pairs {
    pub const NONE: Self = Self([[0; Action::ALL.len()]; Action::ALL.len()]);

    pub fn count(&mut self, first: Action, then: Action) {
        self.0[first as usize][then as usize] += 1;
    }

    /// Pairs that never came.
    pub fn missing(&self) -> usize {
        self.0.iter().flatten().filter(|count| **count == 0).count()
    }
}

impl fmt::Display for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |action: &Action| format!("{action:?}").chars().take(5).collect::<String>();
        write!(f, "{:>9}", "then:")?;
        for action in Action::ALL {
            write!(f, "{:>6}", short(action))?;
        }
        for (action, row) in Action::ALL.iter().zip(&self.0) {
            write!(f, "\n{:>9}", format!("{action:?}"))?;
            for count in row {
                write!(f, "{count:>6}")?;
            }
        }
        Ok(())
    }
}

/// The number of times that something happened: a walk that never joined a job proves nothing of that.
#[derive(Default)]
pub struct Tally(BTreeMap<&'static str, u32>);

impl Tally {
    pub fn count(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    pub fn add(&mut self, other: &Self) {
        for (what, more) in &other.0 {
            *self.0.entry(what).or_default() += more;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(what, count)| writeln!(f, "{count:>7} {what}"))
    }
}

#[test]
fn a_circuit_takes_each_pair_once() {
    for seed in 0..20 {
        let walk = circuit(seed);
        assert_eq!(walk.len(), Action::CIRCUIT);
        let mut pairs = Pairs::NONE;
        walk.windows(2).for_each(|two| pairs.count(two[0], two[1]));
        assert!(pairs.0.iter().flatten().all(|count| *count == 1), "{pairs}");
    }
}
