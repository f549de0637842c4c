//! The view layers of a scene: which of its collections each of them holds.

use foldhash::{HashMap, HashSet};

use crate::{dna::View, ids::flag, parts::Parts};

/// One view layer, with the tree of its collections.
pub(crate) struct ViewLayer {
    pub name: String,
    pub renders: bool,
    /// The first is the scene's own collection. Empty before Blender 2.80.
    places: Vec<Place>,
}

/// A collection in a view layer.
struct Place {
    collection: u64,
    /// The collection's own objects are not in the view layer.
    excluded: bool,
    /// Places in the list of all.
    children: Vec<usize>,
}

/// The collections of a file, for the walk through a view layer.
pub(crate) trait Collections {
    /// Objects and collections that are directly in one; `None` where another file holds it.
    fn members(&self, collection: u64) -> Option<(&[u64], &[u64])>;
    /// The collection is off for renders.
    fn hides(&self, collection: u64) -> bool;
}

impl ViewLayer {
    /// All of a scene.
    pub fn read(parts: &Parts<'_>, scene: View<'_>) -> Vec<Self> {
        let mut seen = HashSet::default();
        let layers = parts.list(scene.pointer("view_layers.first"));
        layers.map(|layer| Self::of(parts, layer, &mut seen)).collect()
    }

    /// A block that was read before is not read again: a file may make a ring of them.
    fn of(parts: &Parts<'_>, layer: View<'_>, seen: &mut HashSet<u64>) -> Self {
        const RENDERS: u32 = 0;
        const EXCLUDED: u32 = 4;
        let (name, renders) = (layer.text("name").unwrap_or_default(), flag(layer, "flag", RENDERS));
        let mut places: Vec<Place> = Vec::new();
        let mut todo = vec![(layer.pointer("layer_collections.first"), None::<usize>)];
        while let Some((first, parent)) = todo.pop() {
            let mut next = first;
            while let Some(place) = parts.get(next.filter(|old| seen.insert(*old))) {
                next = place.pointer("next");
                let at = places.len();
                let collection = place.pointer("collection").unwrap_or(0);
                let excluded = flag(place, "flag", EXCLUDED);
                places.push(Place { collection, excluded, children: Vec::new() });
                if let Some(parent) = parent.and_then(|parent| places.get_mut(parent)) {
                    parent.children.push(at);
                }
                todo.push((place.pointer("layer_collections.first"), Some(at)));
            }
        }
        Self { name, renders, places }
    }

    /// Bytes that it takes.
    pub fn cost(&self) -> usize {
        64 + self.name.len() + 64 * self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Tells of every object that renders in this layer, and of every collection of which this file does not tell more;
    /// some more than once. `left` is how many steps it may take.
    pub fn each(
        &self,
        own: (&[u64], &[u64]),
        collections: &dyn Collections,
        left: &mut usize,
        each: &mut dyn FnMut(u64),
    ) {
        let mut todo = vec![(0, false)];
        while let Some((at, within_hidden)) = todo.pop() {
            let Some(place) = self.places.get(at) else { continue };
            let members = if at == 0 { Some(own) } else { collections.members(place.collection) };
            let hidden = within_hidden || collections.hides(place.collection);
            let shows = !place.excluded && !hidden;
            let Some((objects, children)) = members else {
                let shows_some = || place.children.iter().any(|child| !self.is_excluded(*child));
                if shows || (!hidden && shows_some()) {
                    each(place.collection);
                }
                continue;
            };
            let Some(less) = left.checked_sub(1 + objects.len() + children.len()) else {
                *left = 0;
                return;
            };
            *left = less;
            if shows {
                objects.iter().copied().for_each(&mut *each);
            }
            let mut places: HashMap<u64, Vec<usize>> = HashMap::default();
            for child in &place.children {
                if let Some(place) = self.places.get(*child) {
                    places.entry(place.collection).or_default().push(*child);
                }
            }
            for child in children {
                match places.remove(child) {
                    Some(at) => todo.extend(at.into_iter().map(|at| (at, hidden))),
                    // The layer has not heard of it: Blender takes it in when it opens the file.
                    None if shows => each(*child),
                    None => {}
                }
            }
        }
    }

    fn is_excluded(&self, at: usize) -> bool {
        self.places.get(at).is_none_or(|place| place.excluded)
    }
}
