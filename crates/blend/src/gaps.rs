//! The files of sequences that requested frames show, and that are not there.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
};

use kiln_types::FrameSet;
use serde::Serialize;

use crate::{
    dependencies::Dependency,
    external::ExternalKind,
    inspect::Inspection,
    sequence::{FrameDemand, NumberedName, SequenceRule, SequenceUser},
};

/// Frames of users that are looked at.
const MAX_STEPS: usize = 20_000_000;
/// Files of one sequence that are named.
const MAX_NAMED: usize = 1000;

/// The frames that shall be rendered, and of which scene.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RenderScope<'a> {
    pub scene: &'a str,
    pub frames: &'a FrameSet,
    /// This view layer alone; all that are on where `None`.
    pub view_layer: Option<&'a str>,
    /// By another engine than that of the scene.
    pub engine: Option<&'a str>,
}

impl<'a> RenderScope<'a> {
    /// As the scene is set up.
    pub fn new(scene: &'a str, frames: &'a FrameSet) -> Self {
        Self { scene, frames, view_layer: None, engine: None }
    }
}

/// The scope of a render without options: the active scene and its own frames.
#[derive(Debug, Clone)]
pub struct OwnScope {
    scene: String,
    frames: FrameSet,
}

impl Inspection {
    /// None where the file has no scene that could be rendered, or its scene no frames.
    pub fn own_scope(&self) -> Option<OwnScope> {
        let scene = self.active()?;
        Some(OwnScope { scene: scene.name.clone(), frames: scene.frames(None).ok()? })
    }
}

impl OwnScope {
    pub fn scope(&self) -> RenderScope<'_> {
        RenderScope::new(&self.scene, &self.frames)
    }
}

/// A file that a frame shows, and that is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AbsentFile {
    pub name: String,
    /// The first frame that shows it.
    pub frame: i32,
}

/// The files that a sequence lacks.
#[derive(Debug, Default)]
pub(crate) struct Gaps {
    pub absent: Vec<AbsentFile>,
    /// A frame outside of the sequence, or a gap that may not matter.
    pub notice: Option<String>,
}

/// The steps that are left.
pub(crate) struct StepBudget(usize);

impl Default for StepBudget {
    fn default() -> Self {
        Self(MAX_STEPS)
    }
}

/// `counts` tells whether a render meets a user of the sequence; it is asked for those alone that lack something.
pub(crate) fn gaps(
    item: &Dependency,
    requested: &RenderScope<'_>,
    counts: &dyn Fn(&SequenceUser) -> bool,
    steps: &mut StepBudget,
) -> Gaps {
    let mut gaps = Gaps::default();
    let name = item.place.file_name().unwrap_or_default().as_encoded_bytes();
    let Some(parts) = NumberedName::of(&item.file, name).filter(|_| !item.files.is_empty()) else {
        return gaps;
    };
    // What composites or cuts another scene is not rendered.
    let here = |by: &str| by.strip_prefix("SC").is_none_or(|scene| scene == requested.scene);
    let mut rules: HashMap<SequenceRule, Vec<&SequenceUser>> = HashMap::new();
    for user in item.file.shown_by.iter().filter(|user| here(&user.by)) {
        rules.entry(user.rule).or_default().push(user);
    }
    if rules.is_empty() {
        return gaps;
    }
    let numbers: HashSet<i64> = item.files.iter().filter_map(|path| parts.number_of(name_of(path))).collect();
    let (first, last) = (numbers.iter().min().copied(), numbers.iter().max().copied());
    let is_between =
        |number: i64| first.is_some_and(|first| first < number) && last.is_some_and(|last| number < last);
    let (mut absent, mut outside) = (BTreeMap::new(), BTreeMap::new());
    for (rule, users) in &rules {
        let is_met = OnceCell::new();
        let is_met = || *is_met.get_or_init(|| users.iter().any(|user| counts(user)));
        for frame in requested.frames.iter() {
            steps.0 = steps.0.saturating_sub(1);
            if steps.0 == 0 {
                break;
            }
            let (number, is_needed) = match rule.wanted(frame) {
                FrameDemand::Nothing => continue,
                FrameDemand::Needed(number) => (number, true),
                FrameDemand::Between(number) => (number, is_between(number)),
            };
            if numbers.contains(&number) {
                continue;
            }
            if !is_met() {
                break;
            }
            let found = if is_needed { &mut absent } else { &mut outside };
            let known: &mut i32 = found.entry(number).or_insert(frame);
            *known = (*known).min(frame);
        }
    }
    let named = |number: i64| String::from_utf8_lossy(&parts.with(number)).into_owned();
    let (noun, path) = (item.file.kind.noun(), &item.file.path);
    if let Some((number, frame)) =
        outside.first_key_value().filter(|_| item.file.kind != ExternalKind::MovieClip)
    {
        let name = named(*number);
        gaps.notice = Some(format!(
            "{noun} {path}: frame {frame} lies outside of the sequence; Blender looks for {name} and shows nothing, or pink"
        ));
    }
    let unknown = rules.get(&SequenceRule::Unknown).map_or(&[][..], Vec::as_slice);
    let inner = first.zip(last).filter(|_| !unknown.is_empty());
    if let Some(number) =
        inner.and_then(|(first, last)| (first..last).find(|number| !numbers.contains(number)))
        && unknown.iter().any(|user| counts(user))
    {
        let name = named(number);
        gaps.notice =
            Some(format!("{noun} {path} lacks {name}; only the render tells whether a frame shows it"));
    }
    let each = absent.into_iter().take(MAX_NAMED);
    gaps.absent = each.map(|(number, frame)| AbsentFile { name: named(number), frame }).collect();
    gaps
}

fn name_of(path: &Path) -> &[u8] {
    path.file_name().unwrap_or_default().as_encoded_bytes()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::{
        ExternalFile,
        dependencies::PathMatch,
        sequence::{Clip, VolumeMode},
    };

    fn item(kind: ExternalKind, name: &str, there: &[&str], rules: &[(&str, SequenceRule)]) -> Dependency {
        let mut file = ExternalFile::new(kind, format!("//{name}").into_bytes(), "IMpictures".to_owned());
        file.sequence = true;
        let user = |(by, rule): &(&str, SequenceRule)| SequenceUser {
            by: (*by).to_owned(),
            rule: *rule,
            old: 0,
            holder: PathBuf::new(),
        };
        file.shown_by = rules.iter().map(user).collect();
        Dependency {
            file,
            holder: PathBuf::from("/p/shot.blend"),
            relative: true,
            place: Path::new("/p").join(name),
            files: there.iter().map(|name| Path::new("/p").join(name)).collect(),
            found_as: PathMatch::Written,
        }
    }

    fn look(item: &Dependency, frames: &str) -> (Vec<(String, i32)>, Option<String>) {
        let frames = frames.parse().unwrap();
        let found = gaps(
            item,
            &RenderScope::new("Scene", &frames),
            &|user| user.by != "MAaway",
            &mut StepBudget::default(),
        );
        (found.absent.into_iter().map(|one| (one.name, one.frame)).collect(), found.notice)
    }

    #[track_caller]
    fn check(item: &Dependency, frames: &str, absent: &[(&str, i32)], noted: bool) {
        let (found, notice) = look(item, frames);
        let absent: Vec<_> = absent.iter().map(|(name, frame)| ((*name).to_owned(), *frame)).collect();
        assert_eq!(found, absent, "{frames}");
        assert_eq!(notice.is_some(), noted, "{frames}: {notice:?}");
    }

    const THERE: [&str; 3] = ["s_0001_d.png", "s_0002_d.png", "s_0004_d.png"];

    fn image(start: i64, duration: i64, offset: i64, cyclic: bool) -> SequenceRule {
        SequenceRule::Image { start, duration, offset, cyclic }
    }

    #[test]
    fn only_what_a_requested_frame_shows_is_missing() {
        let shown = item(ExternalKind::Image, "s_0001_d.png", &THERE, &[("MAx", image(1, 4, 0, false))]);
        check(&shown, "1-2,4-9", &[], false);
        check(&shown, "4-2", &[("s_0003_d.png", 3)], false);
        check(&shown, "-5-2", &[], true);
        let shown = item(ExternalKind::Image, "s_0001_d.png", &THERE, &[("MAx", image(1, 9, 0, false))]);
        check(&shown, "9,5,7", &[("s_0005_d.png", 5), ("s_0007_d.png", 7), ("s_0009_d.png", 9)], false);
        let shown = item(ExternalKind::Image, "s_0001_d.png", &THERE, &[("MAx", image(1, 4, 0, true))]);
        check(&shown, "12-18x2", &[], false);
        check(&shown, "12-18", &[("s_0003_d.png", 15)], false);
    }

    #[test]
    fn users_of_other_scenes_do_not_count_and_unknown_ones_are_noted() {
        let other = item(ExternalKind::Image, "s_0001_d.png", &THERE, &[("SCOther", image(1, 4, 0, false))]);
        check(&other, "1-4", &[], false);
        let own = item(ExternalKind::Image, "s_0001_d.png", &THERE, &[("SCScene", image(1, 4, 0, false))]);
        check(&own, "1-4", &[("s_0003_d.png", 3)], false);
        let unknown = item(ExternalKind::Image, "s_0001_d.png", &THERE, &[("NTx", SequenceRule::Unknown)]);
        check(&unknown, "1", &[], true);
        let away = item(ExternalKind::Image, "s_0001_d.png", &THERE, &[("MAaway", image(1, 4, 0, false))]);
        check(&away, "1-4", &[], false);
        let none = item(ExternalKind::Image, "s_0001_d.png", &THERE, &[]);
        check(&none, "1-9", &[], false);
    }

    #[test]
    fn outside_of_a_clip_nothing_is_shown_and_nothing_said() {
        let there = ["s_0002.png", "s_0003.png", "s_0005.png"];
        let clip = |length| SequenceRule::Clip(Clip { first: 2, start: 1, offset: 0, length });
        let shown = item(ExternalKind::MovieClip, "s_0002.png", &there, &[("SCScene", clip(2))]);
        check(&shown, "-9-2,4-20", &[], false);
        check(&shown, "1-20", &[("s_0004.png", 3)], false);
        let shown = item(ExternalKind::MovieClip, "s_0002.png", &there, &[("SCScene", clip(6))]);
        check(&shown, "4-20", &[("s_0006.png", 5), ("s_0007.png", 6)], false);
    }

    #[test]
    fn volumes_go_below_zero_and_caches_need_every_frame() {
        let there = ["v_-0001.vdb", "v_0000.vdb", "v_0002.vdb"];
        let rule = SequenceRule::Volume { start: 1, duration: 4, offset: -2, mode: VolumeMode::Clip };
        let shown = item(ExternalKind::Volume, "v_0000.vdb", &there, &[("VOx", rule)]);
        check(&shown, "-9-99", &[("v_0001.vdb", 3)], false);
        let rule = SequenceRule::Cache { frame: None };
        let shown = item(ExternalKind::CacheFile, "c_1.abc", &["c_1.abc", "c_2.abc"], &[("CFx", rule)]);
        check(&shown, "1-3", &[("c_3.abc", 3)], false);
        let rule = SequenceRule::Cache { frame: Some(2) };
        let shown = item(ExternalKind::CacheFile, "c_1.abc", &["c_1.abc", "c_2.abc"], &[("CFx", rule)]);
        check(&shown, "1-3", &[], false);
    }
}
