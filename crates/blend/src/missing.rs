//! The files that a .blend and its libraries name, and that a render would lack.

use std::{
    cell::{Cell, OnceCell},
    collections::HashSet,
    path::PathBuf,
};

use serde::Serialize;

use crate::{
    dependencies::{Dependencies, Dependency, LONGEST_PATH, PathMatch, is_too_long},
    expand::tile,
    external::ExternalKind,
    gaps::{AbsentFile, RenderScope, StepBudget, gaps},
    sequence::{SequenceRule, SequenceUser},
    used::UsedFiles,
};

/// Missing files that are not used, and are told one by one.
const NAMED: usize = 5;

/// A file that is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MissingDependency {
    pub kind: ExternalKind,
    /// As written in the .blend.
    pub path: String,
    /// The path that was looked for.
    #[serde(serialize_with = "kiln_types::paths::shown")]
    pub place: PathBuf,
    /// The .blend that names it.
    #[serde(serialize_with = "kiln_types::paths::shown")]
    pub holder: PathBuf,
    pub owner: String,
    /// The path is one of Windows, which is nowhere on this machine.
    pub of_windows: bool,
    /// A file of that name that may be the one, and was not taken.
    #[serde(serialize_with = "kiln_types::paths::shown_if_any")]
    pub maybe_at: Option<PathBuf>,
    /// Of a sequence, or a set of tiles, that is there in part: what is not.
    pub absent: Vec<AbsentFile>,
}

impl std::fmt::Display for MissingDependency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} (", self.kind.noun(), self.path)?;
        match &self.absent[..] {
            [] => {}
            [one] => return write!(f, "{} is not there, and frame {} shows it)", one.name, one.frame),
            [first, .., last] => {
                let (count, from, to) = (self.absent.len(), first.frame, last.frame);
                let (first, last) = (&first.name, &last.name);
                return write!(
                    f,
                    "{count} of its files are not there: {first} of frame {from} to {last} of frame {to})"
                );
            }
        }
        if self.of_windows {
            write!(f, "a path of Windows, which is not here")?;
        } else if is_too_long(&self.place) {
            let bytes = self.place.as_os_str().len();
            write!(f, "its path has {bytes} bytes, and Blender opens none of more than {LONGEST_PATH}")?;
        } else {
            write!(f, "looked for at {}", self.place.display())?;
        }
        if let Some(path) = &self.maybe_at {
            write!(f, "; is it {}? then point the .blend there", path.display())?;
        }
        write!(f, ")")
    }
}

/// A file that is missing, and that nothing which renders uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusedDependency {
    /// The index among [`Dependencies::items`].
    pub index: usize,
    pub file: MissingDependency,
}

impl std::fmt::Display for UnusedDependency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let file = &self.file;
        let Some((first, more)) = file.absent.split_first() else { return write!(f, "{file} is missing") };
        write!(f, "{} {} lacks {}", file.kind.noun(), file.path, first.name)?;
        if more.is_empty() { Ok(()) } else { write!(f, " and {} more", more.len()) }
    }
}

#[derive(Debug, Default)]
pub struct MissingReport {
    pub missing: Vec<MissingDependency>,
    /// Also sequences that lack files which only such users show as do not render.
    pub unused: Vec<UnusedDependency>,
    /// Notes on sequences.
    pub gaps: Vec<String>,
    scene: String,
}

impl MissingReport {
    /// Adds what another render of the same files lacks. A file that one of the two needs is missing.
    pub(crate) fn and(mut self, other: Self) -> Self {
        let is_same = |a: &MissingDependency, b: &MissingDependency| {
            (&a.holder, &a.path, a.kind) == (&b.holder, &b.path, b.kind)
        };
        for file in other.missing {
            if !self.missing.contains(&file) {
                self.missing.push(file);
            }
        }
        for one in other.unused {
            if !self.unused.iter().any(|known| known.index == one.index) {
                self.unused.push(one);
            }
        }
        let missing = &self.missing;
        self.unused.retain(|one| !missing.iter().any(|file| is_same(file, &one.file)));
        self.unused.sort_by_key(|one| one.index);
        let fresh: Vec<String> = other.gaps.into_iter().filter(|gap| !self.gaps.contains(gap)).collect();
        self.gaps.extend(fresh);
        if self.scene != other.scene {
            self.scene = format!("{}”, “{}", self.scene, other.scene);
        }
        self
    }

    /// Notes for the user that are no reason to stop.
    pub fn notices(&self) -> Vec<String> {
        let told = |one: &UnusedDependency| {
            format!("{one}; nothing that the scene “{}” renders uses it", self.scene)
        };
        let mut notices = self.gaps.clone();
        notices.extend(self.unused.iter().take(NAMED).map(told));
        match self.unused.len().saturating_sub(NAMED) {
            0 => {}
            more => notices.push(format!(
                "{more} more files are missing that nothing of the scene “{}” uses; `kiln inspect` lists them",
                self.scene
            )),
        }
        notices
    }
}

impl MissingDependency {
    fn of(item: &Dependency) -> Self {
        Self {
            kind: item.file.kind,
            path: item.file.path.clone(),
            place: item.place.clone(),
            holder: item.holder.clone(),
            owner: item.file.owner.clone(),
            of_windows: item.is_foreign(),
            maybe_at: match &item.found_as {
                PathMatch::MaybeAt(path) => Some(path.clone()),
                PathMatch::Written | PathMatch::Alike => None,
            },
            absent: Vec::new(),
        }
    }
}

impl Dependencies {
    /// Finds the files that a render of these frames would lack. Without a scope every file counts as used.
    pub fn find_missing(&self, requested: Option<RenderScope<'_>>) -> MissingReport {
        let (mut lacking, mut steps) = (MissingReport::default(), StepBudget::default());
        lacking.scene = requested.map_or("", |requested| requested.scene).to_owned();
        let used = OnceCell::new();
        let used = |requested: &RenderScope<'_>| used.get_or_init(|| UsedFiles::by(self, requested));
        for (index, item) in self.items.iter().enumerate() {
            let is_own = |user: &SequenceUser| user.holder == self.blend;
            if item.is_missing() || (item.lacks_own_picture() && item.file.shown_by.iter().any(is_own)) {
                let file = MissingDependency::of(item);
                match requested.filter(|requested| !used(requested).file(item)) {
                    Some(_) => lacking.unused.push(UnusedDependency { index, file }),
                    None => lacking.missing.push(file),
                }
            } else if let Some((requested, absent)) =
                requested.and_then(|requested| Some((requested, absent_tiles(item, &requested)?)))
            {
                let file = MissingDependency { absent, ..MissingDependency::of(item) };
                match used(&requested).file(item) {
                    true => lacking.missing.push(file),
                    false => lacking.unused.push(UnusedDependency { index, file }),
                }
            } else if let Some(requested) = requested.filter(|_| !item.file.shown_by.is_empty()) {
                let is_spared = Cell::new(false);
                // What is hidden is only read by Blender where something leads to it.
                let counts = |user: &SequenceUser| {
                    let used = used(&requested);
                    let counts = used.file(item) && used.user(user);
                    is_spared.set(is_spared.get() || !counts);
                    counts
                };
                let found = gaps(item, &requested, &counts, &mut steps);
                lacking.gaps.extend(found.notice);
                let is_spared = is_spared.get();
                if !found.absent.is_empty() {
                    lacking
                        .missing
                        .push(MissingDependency { absent: found.absent, ..MissingDependency::of(item) });
                } else if is_spared
                    && !item.file.shown_by.iter().any(|user| is_calculated(user) && counts(user))
                {
                    let absent = gaps(item, &requested, &|_| true, &mut steps).absent;
                    lacking.unused.push(UnusedDependency {
                        index,
                        file: MissingDependency { absent, ..MissingDependency::of(item) },
                    });
                }
            }
        }
        lacking
    }
}

/// The tiles that an image lacks: every frame shows all of them, Blender takes it.
fn absent_tiles(item: &Dependency, requested: &RenderScope<'_>) -> Option<Vec<AbsentFile>> {
    if item.file.tiles.is_empty() || item.file.packed {
        return None;
    }
    let name = item.place.file_name()?.as_encoded_bytes();
    let there: HashSet<&[u8]> =
        item.files.iter().filter_map(|path| Some(path.file_name()?.as_encoded_bytes())).collect();
    let frame = requested.frames.iter().next()?;
    let wanted = item.file.tiles.iter().filter_map(|number| tile(name, *number));
    let absent = wanted.filter(|name| !there.contains(&name[..]));
    let absent = absent.map(|name| AbsentFile { name: String::from_utf8_lossy(&name).into_owned(), frame });
    Some(absent.collect::<Vec<_>>()).filter(|absent| !absent.is_empty())
}

/// Only the render tells which files it shows.
fn is_calculated(user: &SequenceUser) -> bool {
    user.rule == SequenceRule::Unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_files_that_are_not_used_the_first_are_named() {
        let file = |index: usize| MissingDependency {
            kind: ExternalKind::Image,
            path: format!("//{index}.png"),
            place: PathBuf::from(format!("/p/{index}.png")),
            holder: PathBuf::from("/p/shot.blend"),
            owner: format!("IM{index}"),
            of_windows: false,
            maybe_at: None,
            absent: Vec::new(),
        };
        let lacking = |count: usize| MissingReport {
            unused: (0..count).map(|index| UnusedDependency { index, file: file(index) }).collect(),
            scene: "Shot".to_owned(),
            ..MissingReport::default()
        };
        let first = "image //0.png (looked for at /p/0.png) is missing; nothing that the scene “Shot” renders uses it";
        assert_eq!(lacking(1).notices(), [first]);
        assert_eq!(lacking(NAMED).notices().len(), NAMED);
        let many = lacking(NAMED + 7).notices();
        assert_eq!((many.len(), many[0].as_str()), (NAMED + 1, first));
        assert!(many[NAMED].starts_with("7 more files are missing"), "{}", many[NAMED]);
        let mut part = file(0);
        for frame in 3..6 {
            part.absent.push(AbsentFile { name: format!("{frame}.png"), frame });
            let more = if frame == 3 { String::new() } else { format!(" and {} more", frame - 3) };
            let unused = UnusedDependency { index: 0, file: part.clone() };
            assert_eq!(unused.to_string(), format!("image //0.png lacks 3.png{more}"));
        }
    }
}
