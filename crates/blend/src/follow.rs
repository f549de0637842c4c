//! What a scene shows, and all that its picture depends on: whatever pointers lead to, also in other files.

use std::hash::Hash;

use foldhash::HashSet;

use crate::{
    layers::ViewLayer,
    reach::{Link, Members, Reach, Shown},
};

/// Datablocks that are looked at before nothing more is followed: scenes of one file may all show the same million
/// objects.
pub(crate) const MAX_STEPS: usize = 50_000_000;

/// A datablock in one of several files.
pub(crate) type Place<'a, F> = (F, &'a Reach, u64);

/// A datablock that a scene comes to.
pub(crate) struct Met<F> {
    pub file: F,
    pub old: u64,
    /// The picture depends on it; else it is only there.
    pub counts: bool,
}

/// What a walk is for.
#[derive(Clone, Copy)]
pub(crate) enum Purpose<'a> {
    /// Simulations. What is in a scene counts in every view layer: a bake too many costs time, one too few a wrong
    /// picture. `blender/kiln_host/simulations.py` walks the same way.
    Simulations,
    /// Files that may be read from the disk.
    Files(Rendering<'a>),
}

/// How a scene renders.
#[derive(Clone, Copy, Default)]
pub(crate) struct Rendering<'a> {
    /// One view layer alone; else all that are on.
    pub view_layer: Option<&'a str>,
    /// The engine draws by all nodes of a material, not only by those that lead to its result.
    pub all_nodes: bool,
    /// It renders more than scenes: then no sequencer stands in for one.
    pub overrides_sequencer: bool,
}

/// How what is looked at came into the picture.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    /// A scene.
    Draws(u64),
    /// As a member of what shows: it does where it is not hidden.
    Shows(u64),
    /// Something needs it, hidden or not.
    Counts(u64),
    /// As a setting of the scene.
    Setting(u64),
}

impl Step {
    fn old(self) -> u64 {
        match self {
            Self::Draws(old) | Self::Shows(old) | Self::Counts(old) | Self::Setting(old) => old,
        }
    }

    /// The same for what it stands for in a library.
    fn at(self, there: u64) -> Self {
        match self {
            Self::Draws(_) => Self::Draws(there),
            Self::Shows(_) => Self::Shows(there),
            Self::Counts(_) | Self::Setting(_) => Self::Counts(there),
        }
    }
}

/// Tells of every object that is in a scene, and of every datablock that the scene's picture depends on, however deep;
/// of the scenes that it draws, too. `beyond` finds what a link stands for, in which file. `left` is how many steps it
/// may take: where none is left afterwards, there may be more.
pub(crate) fn follow<'a, F: Copy + Eq + Hash>(
    (file, reach): (F, &'a Reach),
    shown: &'a Shown,
    purpose: Purpose<'_>,
    left: &mut usize,
    beyond: &dyn Fn(F, &Link) -> Option<Place<'a, F>>,
    each: &mut dyn FnMut(Met<F>),
) {
    let mut todo: Vec<_> =
        enter(reach, shown, purpose, true, left).into_iter().map(|step| (file, reach, step)).collect();
    let mut seen = HashSet::default();
    if !is_covered(reach, shown, purpose) {
        // Where others draw it, it shows no more than itself.
        seen.insert((file, Step::Draws(shown.old)));
    }
    while let Some((file, reach, step)) = todo.pop() {
        if !seen.insert((file, step)) {
            continue;
        }
        match left.checked_sub(1) {
            Some(less) => *left = less,
            None => return,
        }
        let old = step.old();
        if let Some(link) = reach.linked(old) {
            let is_setting = matches!(step, Step::Setting(_));
            let there = beyond(file, link).filter(|_| !(is_setting && link.is_member()));
            todo.extend(there.map(|(file, reach, there)| (file, reach, step.at(there))));
            continue;
        }
        let (is_object, members) = (reach.is_object(old), reach.members_of(old));
        let mut go_on = |step| todo.push((file, reach, step));
        match step {
            Step::Draws(_) => {
                if let Some(drawn) = reach.index_of(old).and_then(|index| reach.scenes().get(index)) {
                    each(Met { file, old, counts: true });
                    enter(reach, drawn, purpose, false, left).into_iter().for_each(go_on);
                }
            }
            Step::Shows(_) => {
                let for_files = matches!(purpose, Purpose::Files(_));
                if let Some(members) = members {
                    if !(for_files && reach.is_hidden_collection(old)) {
                        members.all().map(Step::Shows).for_each(go_on);
                    }
                } else if is_object {
                    each(Met { file, old, counts: false });
                    if !reach.is_hidden(old) || (for_files && reach.is_acting(old)) {
                        go_on(Step::Counts(old));
                    }
                }
            }
            Step::Counts(_) => {
                each(Met { file, old, counts: true });
                members.into_iter().flat_map(Members::all).map(Step::Counts).for_each(&mut go_on);
                reach.used_by(old).iter().copied().map(Step::Counts).for_each(&mut go_on);
                at_times(reach, old, purpose).map(Step::Counts).for_each(&mut go_on);
                reach.stands_for(old).map(Step::Shows).into_iter().for_each(go_on);
            }
            Step::Setting(_) if is_object || members.is_some() => {}
            Step::Setting(_) => go_on(Step::Counts(old)),
        }
    }
}

/// Where pointers lead that count in some frame.
fn at_times(reach: &Reach, old: u64, purpose: Purpose<'_>) -> impl Iterator<Item = u64> {
    let counts = move |one: &&_| match purpose {
        Purpose::Simulations => true,
        Purpose::Files(rendering) => reach.counts(one, rendering.all_nodes),
    };
    reach.at_times(old).iter().filter(counts).map(|one| one.to)
}

/// Whether nothing shows of the scene that renders, but what its sequencer shows.
fn is_covered(reach: &Reach, shown: &Shown, purpose: Purpose<'_>) -> bool {
    match purpose {
        Purpose::Simulations => false,
        Purpose::Files(rendering) => !rendering.overrides_sequencer && reach.is_covered(shown),
    }
}

/// The first steps of a scene: of the one that renders, or of one that it draws.
fn enter(reach: &Reach, shown: &Shown, purpose: Purpose<'_>, renders: bool, left: &mut usize) -> Vec<Step> {
    let mut steps: Vec<Step> = shown.looks_through.iter().copied().map(Step::Counts).collect();
    let settings = || shown.uses.iter().copied().map(Step::Setting);
    let Purpose::Files(rendering) = purpose else {
        steps.extend(shown.members.all().map(Step::Shows));
        steps.extend(settings());
        steps.extend(at_times(reach, shown.old, purpose).map(Step::Counts));
        steps.extend(reach.draws(shown).into_iter().map(Step::Draws));
        return steps;
    };
    // A strip of another scene may show this one's sequencer, whether it is used here or not.
    if !renders || reach.sequences(shown) {
        steps.extend(shown.sequencer.map(Step::Counts));
        steps.extend(reach.in_strips(shown).into_iter().map(Step::Draws));
    }
    if renders && is_covered(reach, shown, purpose) {
        return steps;
    }
    // Which view layers another scene shows of this one is not looked at.
    let picked = |layer: &ViewLayer| match rendering.view_layer {
        _ if !renders => true,
        Some(name) => layer.name == name,
        None => layer.renders,
    };
    reach.rendered(shown, &picked, left, &mut |old| steps.push(Step::Shows(old)));
    steps.extend(settings());
    steps.extend(at_times(reach, shown.old, purpose).map(Step::Counts));
    steps.extend(reach.behind(shown).into_iter().map(Step::Draws));
    steps
}
