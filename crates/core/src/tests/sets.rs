//! Sets of tasks against the plain thing.

use std::collections::BTreeSet;

use kiln_types::{Generation, TaskIndex};
use proptest::prelude::*;

use crate::{Generations, IndexSet, TaskSpan};

fn span(first: u32, last: u32) -> TaskSpan {
    TaskSpan { first: TaskIndex(first), last: TaskIndex(last) }
}

fn plain(set: &IndexSet) -> BTreeSet<u32> {
    set.iter().map(|index| index.0).collect()
}

#[test]
fn a_million_tasks_are_one_span() {
    let mut set = IndexSet::first(1_048_576);
    assert_eq!((set.len(), set.spans().count()), (1_048_576, 1));
    assert!(set.remove(TaskIndex(7)));
    assert_eq!(set.to_string(), "0-6,8-1048575");
    assert!(set.insert(TaskIndex(7)));
    assert_eq!(set.spans().count(), 1);
}

#[test]
fn bad_texts_are_refused() {
    for bad in ["x", "1-", "5-2", "1,,2", "0-99999999999", "0-2097149"] {
        assert!(bad.parse::<IndexSet>().is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn behaves_like_a_plain_set(ops in prop::collection::vec((0u8..6, 0u32..40, 0u32..10), 1..60)) {
        let (mut set, mut model) = (IndexSet::default(), BTreeSet::new());
        for (op, first, more) in ops {
            let range = first..=first + more;
            let other: IndexSet = range.clone().step_by(2).map(TaskIndex).collect();
            match op {
                0 => prop_assert_eq!(set.insert(TaskIndex(first)), model.insert(first)),
                1 => prop_assert_eq!(set.remove(TaskIndex(first)), model.remove(&first)),
                2 => {
                    set.insert_span(span(first, first + more));
                    model.extend(range);
                }
                3 => {
                    set.remove_span(span(first, first + more));
                    model.retain(|index| !range.contains(index));
                }
                4 => {
                    set.merge(&other);
                    model.extend(plain(&other));
                }
                _ => {
                    let both = set.intersection(&other);
                    prop_assert_eq!(plain(&both), &model & &plain(&other));
                    set.subtract(&other);
                    model = &model - &plain(&other);
                }
            }
            prop_assert_eq!(plain(&set), model.clone());
            prop_assert_eq!(set.len() as usize, model.len());
            prop_assert!((0..60).all(|i| set.contains(TaskIndex(i)) == model.contains(&i)));
            prop_assert_eq!(set.highest().map(|i| i.0), model.last().copied());
            let spans: Vec<_> = set.spans().collect();
            prop_assert!(spans.windows(2).all(|pair| pair[0].last.0 + 1 < pair[1].first.0), "not joined");
            prop_assert_eq!(set.to_string().parse::<IndexSet>().unwrap(), set.clone());
        }
    }

    #[test]
    fn generations_behave_like_an_array(ops in prop::collection::vec((0u32..30, 0u32..10, 0u32..4), 1..40)) {
        let (mut generations, mut model) = (Generations::default(), [0u32; 50]);
        for (first, more, generation) in ops {
            generations.set(span(first, first + more), Generation(generation));
            model[first as usize..=(first + more) as usize].fill(generation);
            for index in 0..50 {
                prop_assert_eq!(generations.get(TaskIndex(index)).0, model[index as usize]);
            }
            let pieces = generations.pieces(span(3, 45));
            let back: Vec<u32> =
                pieces.iter().flat_map(|(span, g)| span.iter().map(|_| g.0)).collect();
            prop_assert_eq!(&back[..], &model[3..=45]);
        }
    }
}
