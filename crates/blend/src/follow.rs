//! Follows the pointers of a scene to all that its picture depends on, also in other files.

use std::hash::Hash;

use foldhash::HashSet;

use crate::{
    graph::{DatablockGraph, LibraryLink, Members, SceneContent},
    layers::ViewLayer,
};

/// Datablocks that are looked at before nothing more is followed: scenes of one file may all show the same million
/// objects.
pub(crate) const MAX_STEPS: usize = 50_000_000;

/// A datablock in one of several files.
pub(crate) type DatablockRef<'a, F> = (F, &'a DatablockGraph, u64);

/// A datablock that a scene comes to.
pub(crate) struct Visit<F> {
    pub file: F,
    pub old: u64,
    /// The picture depends on it; else it is only there.
    pub counts: bool,
}

/// The question that a walk answers.
#[derive(Clone, Copy)]
pub(crate) enum Purpose<'a> {
    /// Simulations. What is in a scene counts in every view layer: a bake too many costs time, one too few a wrong
    /// picture. `blender/kiln_host/simulations.py` walks the same way.
    Simulations,
    /// Files that may be read from the disk.
    Files(Rendering<'a>),
}

/// The settings of a render that decide on what is followed.
#[derive(Clone, Copy, Default)]
pub(crate) struct Rendering<'a> {
    /// One view layer alone; else all that are on.
    pub view_layer: Option<&'a str>,
    /// The engine draws by all nodes of a material, not only by those that lead to its result.
    pub all_nodes: bool,
    /// The engine renders more than scenes: then no sequencer replaces one.
    pub overrides_sequencer: bool,
}

/// The way in which a datablock came into the picture.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    /// A scene.
    SceneSources(u64),
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
            Self::SceneSources(old) | Self::Shows(old) | Self::Counts(old) | Self::Setting(old) => old,
        }
    }

    /// The same for what it stands for in a library.
    fn at(self, there: u64) -> Self {
        match self {
            Self::SceneSources(_) => Self::SceneSources(there),
            Self::Shows(_) => Self::Shows(there),
            Self::Counts(_) | Self::Setting(_) => Self::Counts(there),
        }
    }
}

/// Tells of every object that is in a scene, and of every datablock that the scene's picture depends on, however deep;
/// of the scenes that it draws, too. `beyond` finds what a link stands for, in which file. `left` is how many steps it
/// may take: where none is left afterwards, there may be more.
pub(crate) fn follow<'a, F: Copy + Eq + Hash>(
    (file, graph): (F, &'a DatablockGraph),
    shown: &'a SceneContent,
    purpose: Purpose<'_>,
    left: &mut usize,
    beyond: &dyn Fn(F, &LibraryLink) -> Option<DatablockRef<'a, F>>,
    each: &mut dyn FnMut(Visit<F>),
) {
    let mut todo: Vec<_> =
        enter(graph, shown, purpose, true, left).into_iter().map(|step| (file, graph, step)).collect();
    let mut seen = HashSet::default();
    if !is_covered(graph, shown, purpose) {
        // Where others draw it, it shows no more than itself.
        seen.insert((file, Step::SceneSources(shown.old)));
    }
    while let Some((file, graph, step)) = todo.pop() {
        if !seen.insert((file, step)) {
            continue;
        }
        match left.checked_sub(1) {
            Some(less) => *left = less,
            None => return,
        }
        let old = step.old();
        if let Some(link) = graph.linked(old) {
            let is_setting = matches!(step, Step::Setting(_));
            let there = beyond(file, link).filter(|_| !(is_setting && link.is_member()));
            todo.extend(there.map(|(file, graph, there)| (file, graph, step.at(there))));
            continue;
        }
        let (is_object, members) = (graph.is_object(old), graph.members_of(old));
        let mut go_on = |step| todo.push((file, graph, step));
        match step {
            Step::SceneSources(_) => {
                if let Some(drawn) = graph.scene_at(old) {
                    each(Visit { file, old, counts: true });
                    enter(graph, drawn, purpose, false, left).into_iter().for_each(go_on);
                }
            }
            Step::Shows(_) => {
                let for_files = matches!(purpose, Purpose::Files(_));
                if let Some(members) = members {
                    if !(for_files && graph.is_hidden_collection(old)) {
                        members.all().map(Step::Shows).for_each(go_on);
                    }
                } else if is_object {
                    each(Visit { file, old, counts: false });
                    if !graph.is_hidden(old) || (for_files && graph.is_acting(old)) {
                        go_on(Step::Counts(old));
                    }
                }
            }
            Step::Counts(_) => {
                each(Visit { file, old, counts: true });
                members.into_iter().flat_map(Members::all).map(Step::Counts).for_each(&mut go_on);
                graph.used_by(old).iter().copied().map(Step::Counts).for_each(&mut go_on);
                conditional_uses(graph, old, purpose).map(Step::Counts).for_each(&mut go_on);
                graph.stands_for(old).map(Step::Shows).into_iter().for_each(go_on);
            }
            Step::Setting(_) if is_object || members.is_some() => {}
            Step::Setting(_) => go_on(Step::Counts(old)),
        }
    }
}

/// The targets of pointers that count in some frame.
fn conditional_uses(graph: &DatablockGraph, old: u64, purpose: Purpose<'_>) -> impl Iterator<Item = u64> {
    let counts = move |one: &&_| match purpose {
        Purpose::Simulations => true,
        Purpose::Files(rendering) => graph.counts(one, rendering.all_nodes),
    };
    graph.conditional_uses(old).iter().filter(counts).map(|one| one.to)
}

/// Nothing of the scene that renders is visible but its sequencer.
fn is_covered(graph: &DatablockGraph, shown: &SceneContent, purpose: Purpose<'_>) -> bool {
    match purpose {
        Purpose::Simulations => false,
        Purpose::Files(rendering) => !rendering.overrides_sequencer && graph.is_covered(shown),
    }
}

/// The first steps of a scene: of the one that renders, or of one that it draws.
fn enter(
    graph: &DatablockGraph,
    shown: &SceneContent,
    purpose: Purpose<'_>,
    renders: bool,
    left: &mut usize,
) -> Vec<Step> {
    let mut steps: Vec<Step> = shown.looks_through.iter().copied().map(Step::Counts).collect();
    let settings = || shown.uses.iter().copied().map(Step::Setting);
    let Purpose::Files(rendering) = purpose else {
        steps.extend(shown.members.all().map(Step::Shows));
        steps.extend(settings());
        steps.extend(conditional_uses(graph, shown.old, purpose).map(Step::Counts));
        steps.extend(graph.draws(shown).into_iter().map(Step::SceneSources));
        return steps;
    };
    // A strip of another scene may show this one's sequencer, whether it is used here or not.
    if !renders || graph.sequences(shown) {
        steps.extend(shown.sequencer.map(Step::Counts));
        steps.extend(graph.in_strips(shown).into_iter().map(Step::SceneSources));
    }
    if renders && is_covered(graph, shown, purpose) {
        return steps;
    }
    // Which view layers another scene shows of this one is not looked at.
    let picked = |layer: &ViewLayer| match rendering.view_layer {
        _ if !renders => true,
        Some(name) => layer.name == name,
        None => layer.renders,
    };
    graph.rendered(shown, &picked, left, &mut |old| steps.push(Step::Shows(old)));
    steps.extend(settings());
    steps.extend(conditional_uses(graph, shown.old, purpose).map(Step::Counts));
    steps.extend(graph.behind(shown).into_iter().map(Step::SceneSources));
    steps
}
