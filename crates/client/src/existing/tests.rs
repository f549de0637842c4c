use std::io::Write as _;

use kiln_types::{BlobHash, FileFormat, OutputFile, OutputRole, PixelReport, Suspicion};

use super::*;
use crate::{
    made::{
        Mark,
        samples::{first_version, identity, save},
    },
    manifest::WrittenFile,
};

struct Bed {
    dir: tempfile::TempDir,
    folder: OutFolder,
    manifest: Manifest,
    refuse_black: bool,
}

/// A whole picture.
const PNG: &[u8] = b"\x89PNG\x0d\x0a\x1a\x0a\x00\x00\x00\x0dIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x00\x00\x00\x00:~\x9bU\x00\x00\x00\x0aIDATx\x9cc\xa8\x07\x00\x00\x81\x00\x80\xd3\x94SJ\x00\x00\x00\x00IEND\xaeB`\x82";

/// Each of another .blend.
fn key(n: u8) -> FrameIdentity {
    of(&format!("/p/{n}.blend"), n, i64::from(n), None)
}

fn of(blend: &str, content: u8, read_ms: i64, samples: Option<u32>) -> FrameIdentity {
    identity(&save(blend, content, read_ms), samples, DeviceClass::Cpu, "/p/out")
}

/// A save of the one .blend, read at this time.
fn saved(content: u8, read_ms: i64) -> FrameIdentity {
    of("/p/shot.blend", content, read_ms, None)
}

fn names(frame: i32) -> Vec<RelPath> {
    vec![RelPath::new(&format!("f_{frame:04}.png")).unwrap()]
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = OutFolder::prepare(dir.path()).unwrap();
        let manifest = Manifest::load(&folder, "shot").unwrap();
        Self { dir, folder, manifest, refuse_black: false }
    }

    /// As a frame lands: note, then name.
    fn land(&mut self, key: FrameIdentity, frame: i32, bytes: &[u8]) {
        self.land_at(key, frame, names(frame).remove(0), bytes);
    }

    fn land_at(&mut self, key: FrameIdentity, frame: i32, path: RelPath, bytes: &[u8]) {
        let file = OutputFile {
            path,
            role: OutputRole::Main { view: None },
            hash: BlobHash::of(bytes),
            size: bytes.len() as u64,
            format: FileFormat::Png,
            width: 1,
            height: 1,
            pixels: PixelReport::default(),
        };
        let mut part = self.folder.part(&file.path, file.hash).unwrap();
        part.file.write_all(bytes).unwrap();
        let part = part.finish().unwrap();
        let written = WrittenFile::new(&file, part.stamp().unwrap());
        self.manifest.record(&self.folder, &key, frame, vec![written], Vec::new()).unwrap();
        OutFolder::place(&part, &file.path, true).unwrap();
    }

    fn foreign(&self, frame: i32) {
        self.put(frame, b"mine");
    }

    fn put(&self, frame: i32, bytes: &[u8]) {
        std::fs::write(self.dir.path().join(names(frame)[0].to_path()), bytes).unwrap();
    }

    fn ask(&self, mode: Existing, k: u8, frames: &str) -> Result<(String, u32, u32), String> {
        self.look(mode, &key(k), frames)
            .map(|r| (r.frames.map(|f| f.to_string()).unwrap_or_default(), r.kept, r.skipped))
            .map_err(|error| error.to_string())
    }

    fn look(
        &self,
        mode: Existing,
        identity: &FrameIdentity,
        frames: &str,
    ) -> Result<ToRender, ExistingError> {
        // Read again, as the next run of the program does.
        let manifest = Manifest::load(&self.folder, "shot").unwrap();
        let frames = frames.parse().unwrap();
        find_frames_to_render(&self.folder, &manifest, mode, identity, self.refuse_black, &frames, names)
    }

    /// Kept, replaced and older frames.
    fn counts(&self, mode: Existing, identity: &FrameIdentity, frames: &str) -> (u32, u32, u32) {
        let found = self.look(mode, identity, frames).unwrap();
        (found.kept, found.replaced, found.older)
    }
}

#[test]
fn the_same_command_continues() {
    let mut bed = Bed::new();
    bed.land(key(1), 1, b"one");
    bed.land(key(1), 2, b"two");
    assert_eq!(bed.ask(Existing::Continue, 1, "1-4"), Ok(("3-4".into(), 2, 0)));
    assert_eq!(bed.ask(Existing::Continue, 1, "1-2"), Ok((String::new(), 2, 0)));
    assert_eq!(bed.ask(Existing::Overwrite, 1, "1-4"), Ok(("1-4".into(), 0, 0)));
    assert_eq!(bed.ask(Existing::Skip, 1, "1-4"), Ok(("3-4".into(), 2, 0)));
    assert!(bed.ask(Existing::Error, 1, "1-4").unwrap_err().contains("f_0001.png, f_0002.png"));
}

#[test]
fn variants_in_one_folder_keep_their_frames_apart() {
    let mut bed = Bed::new();
    let other = of("/p/shot.blend", 1, 1, Some(9));
    bed.land(saved(1, 1), 1, b"day");
    bed.land_at(other.clone(), 1, RelPath::new("night_0001.png").unwrap(), b"night");
    assert_eq!(bed.counts(Existing::Continue, &saved(1, 1), "1"), (1, 0, 0));
    assert_eq!(bed.counts(Existing::Continue, &other, "1"), (1, 0, 0));
    // Its name is taken over: only one of the two is there.
    bed.land(other.clone(), 1, b"more");
    assert_eq!(bed.counts(Existing::Replace, &saved(1, 1), "1"), (0, 1, 0));
    assert_eq!(bed.counts(Existing::Continue, &other, "1"), (1, 0, 0));
}

#[test]
fn what_is_there_tells_the_device_that_made_it() {
    use DeviceClass::{Cpu, Cuda, Optix};
    let mut bed = Bed::new();
    let on = |content, device| identity(&save("/p/shot.blend", content, 1), None, device, "/p/out");
    let recorded = |bed: &Bed, content, earlier: &[DeviceClass], frames: &str| {
        let manifest = Manifest::load(&bed.folder, "shot").unwrap();
        let candidates = [Cuda, Optix].map(|device| (device, on(content, device)));
        super::recorded_device(&bed.folder, &manifest, &candidates, earlier, &frames.parse().unwrap())
    };
    assert_eq!(recorded(&bed, 1, &[], "1-4"), None);
    bed.land(on(1, Cuda), 1, b"one");
    bed.land(on(1, Optix), 2, b"two");
    bed.land(on(1, Optix), 3, b"three");
    assert_eq!(recorded(&bed, 1, &[], "1-4"), Some(Optix));
    assert_eq!(recorded(&bed, 1, &[], "1"), Some(Cuda));
    // Of an earlier save it only counts where any of some will do.
    assert_eq!(recorded(&bed, 2, &[], "1-4"), None);
    assert_eq!(recorded(&bed, 2, &[Cuda, Optix], "1-4"), Some(Optix));
    assert_eq!(recorded(&bed, 2, &[Cpu], "1-4"), None);
    // If the frames are gone, all is rendered.
    for frame in [1, 2, 3] {
        std::fs::remove_file(bed.dir.path().join(names(frame)[0].to_path())).unwrap();
    }
    assert_eq!(recorded(&bed, 1, &[], "1-4"), None);
}

#[test]
fn frames_of_an_earlier_save_are_replaced_and_those_outside_are_counted() {
    let mut bed = Bed::new();
    for frame in 1..=6 {
        bed.land(saved(1, 10), frame, b"first");
    }
    assert_eq!(bed.counts(Existing::Continue, &saved(2, 20), "1-4"), (0, 4, 2));
    bed.land(saved(2, 20), 1, b"second");
    assert_eq!(bed.counts(Existing::Continue, &saved(2, 30), "1-6"), (1, 5, 0));
    // The first save again, and read later: an edit that was taken back is an edit.
    assert_eq!(bed.counts(Existing::Continue, &saved(1, 40), "1-6"), (5, 1, 0));
    // A job of the first save that is fetched late takes nothing away.
    let late = bed.look(Existing::Continue, &saved(1, 10), "1-6").unwrap_err();
    assert!(matches!(&late, ExistingError::Newer(found) if found.count == 1), "{late}");
    // What somebody changed is theirs, of whichever save it was.
    bed.put(3, b"painted");
    let error = bed.look(Existing::Continue, &saved(2, 30), "1-6").unwrap_err();
    assert!(
        matches!(&error, ExistingError::Foreign { found, .. } if found.to_string() == "f_0003.png"),
        "{error}"
    );
    // Another .blend of the same name is not the same .blend.
    let other = of("/q/shot.blend", 2, 50, None);
    assert!(matches!(bed.look(Existing::Continue, &other, "2"), Err(ExistingError::Foreign { .. })));
}

#[test]
fn other_settings_are_asked_about_edited_or_not() {
    let mut bed = Bed::new();
    for frame in 1..=3 {
        bed.land(saved(1, 10), frame, b"a night's work");
    }
    for content in [1, 2] {
        let test = of("/p/shot.blend", content, 20, Some(1));
        let error = bed.look(Existing::Continue, &test, "1-2").unwrap_err();
        assert!(matches!(&error, ExistingError::OtherChoices { found, .. } if found.count == 2), "{error}");
        assert!(error.to_string().contains("samples: the file's own, now 1"), "{error}");
        assert!(error.to_string().contains("--existing replace"), "{error}");
        assert_eq!(bed.counts(Existing::Replace, &test, "1-2"), (0, 2, 0));
        assert_eq!(bed.counts(Existing::Skip, &test, "1-2"), (0, 0, 0));
    }
    bed.foreign(2);
    let test = of("/p/shot.blend", 1, 20, Some(1));
    let error = bed.look(Existing::Replace, &test, "1-2").unwrap_err();
    assert!(matches!(error, ExistingError::Foreign { .. }), "a stranger's file is never meant: {error}");
}

#[test]
fn lines_of_the_first_version_are_known_and_written_again() {
    let mut bed = Bed::new();
    bed.land(saved(1, 10), 1, b"one");
    let Mark::Key(key) = first_version(&saved(1, 10)) else { unreachable!() };
    let place = bed.dir.path().join(".kiln/shot.jsonl");
    let text = std::fs::read_to_string(&place).unwrap();
    let mut line: serde_json::Value = serde_json::from_str(&text).unwrap();
    line.as_object_mut().unwrap().remove("made").unwrap();
    line["key"] = key.0.to_string().into();
    std::fs::write(&place, format!("{line}\n")).unwrap();
    assert_eq!(bed.counts(Existing::Continue, &saved(1, 20), "1"), (1, 0, 0));
    let edited = bed.look(Existing::Continue, &saved(2, 20), "1").unwrap_err();
    assert!(matches!(edited, ExistingError::Foreign { .. }), "nothing tells whose it is: {edited}");
    let mut manifest = Manifest::load(&bed.folder, "shot").unwrap();
    manifest.renew(&bed.folder, &saved(1, 20), &"1-5".parse().unwrap()).unwrap();
    assert_eq!(bed.counts(Existing::Continue, &saved(2, 30), "1"), (0, 1, 0));
}

#[test]
fn what_is_looked_at_again_counts_as_wanted_then() {
    let mut bed = Bed::new();
    bed.land(saved(1, 10), 1, b"one");
    let renew = |identity: FrameIdentity| {
        let mut manifest = Manifest::load(&bed.folder, "shot").unwrap();
        manifest.renew(&bed.folder, &identity, &"1".parse().unwrap()).unwrap();
    };
    renew(saved(1, 30));
    // A job of an edit that was taken back meanwhile.
    let error = bed.look(Existing::Continue, &saved(2, 20), "1").unwrap_err();
    assert!(matches!(error, ExistingError::Newer(_)), "{error}");
    // The project moves, is found whole there, and is edited there: the frames lie apart from it.
    renew(identity(&save("/moved/shot.blend", 1, 40), None, DeviceClass::Cpu, "/renders"));
    let there = |content, read_ms| {
        identity(&save("/moved/shot.blend", content, read_ms), None, DeviceClass::Cpu, "/renders")
    };
    assert_eq!(bed.counts(Existing::Continue, &there(2, 50), "1"), (0, 1, 0));
}

#[test]
fn another_scene_or_a_strangers_file_is_not_overwritten() {
    let mut bed = Bed::new();
    bed.land(key(1), 1, b"one");
    bed.foreign(2);
    let error = bed.ask(Existing::Continue, 2, "1-4").unwrap_err();
    assert!(error.contains("2 of the files") && error.contains("f_0001.png, f_0002.png"), "{error}");
    assert!(error.contains("--existing skip"), "{error}");
    assert_eq!(bed.ask(Existing::Skip, 2, "1-4"), Ok(("3-4".into(), 0, 2)));
}

#[test]
fn a_frame_that_was_changed_or_removed_is_noticed() {
    let mut bed = Bed::new();
    bed.land(key(1), 1, b"one");
    bed.land(key(1), 2, b"two");
    bed.land(key(1), 3, b"four");
    std::fs::remove_file(bed.dir.path().join("f_0001.png")).unwrap();
    // Same bytes, another time: still the same frame.
    std::fs::write(bed.dir.path().join("f_0002.png"), b"two").unwrap();
    assert_eq!(bed.ask(Existing::Continue, 1, "1-3"), Ok(("1".into(), 2, 0)));
    bed.foreign(3);
    assert!(bed.ask(Existing::Continue, 1, "1-3").unwrap_err().contains("f_0003.png"));
}

#[test]
fn what_is_empty_or_cut_off_of_kilns_own_is_absent_and_a_strangers_is_named() {
    let mut bed = Bed::new();
    for frame in 1..=5 {
        bed.land(key(1), frame, PNG);
    }
    let whole = "1-5".to_owned();
    assert_eq!(bed.ask(Existing::Continue, 1, "1-5"), Ok((String::new(), 5, 0)));
    bed.put(1, b"");
    bed.put(2, &PNG[..PNG.len() / 2]);
    bed.put(3, &PNG[..3]);
    assert_eq!(bed.ask(Existing::Continue, 1, "1-5"), Ok(("1-3".into(), 2, 0)));
    assert_eq!(bed.ask(Existing::Skip, 1, "1-5"), Ok(("1-3".into(), 2, 0)));
    assert_eq!(bed.ask(Existing::Overwrite, 1, "1-5"), Ok((whole, 0, 0)));
    assert!(bed.ask(Existing::Error, 1, "1-5").unwrap_err().contains("5 of the files"));
    // Of an older scene too: nobody misses it.
    assert_eq!(bed.ask(Existing::Continue, 2, "1-3"), Ok(("1-3".into(), 0, 0)));

    // What somebody made of a frame is theirs, shorter or not.
    let mut edited = PNG.to_vec();
    edited[40] ^= 1;
    bed.put(4, &edited);
    bed.put(5, b"see me");
    let error = bed.ask(Existing::Continue, 1, "1-5").unwrap_err();
    assert!(error.contains("2 of the files") && error.contains("f_0004.png, f_0005.png"), "{error}");
    assert_eq!(bed.ask(Existing::Skip, 1, "1-5"), Ok(("1-3".into(), 0, 2)));

    // A stranger's.
    bed.put(6, b"");
    bed.put(7, &PNG[..PNG.len() - 1]);
    let error = bed.ask(Existing::Continue, 1, "6-8").unwrap_err();
    assert!(error.contains("(f_0006.png, f_0007.png; 2 empty or cut off: f_0006.png"), "{error}");
    assert_eq!(bed.ask(Existing::Skip, 1, "6-8"), Ok(("8".into(), 0, 2)));
    let frames = "6-8".parse().unwrap();
    let skipped =
        find_frames_to_render(&bed.folder, &bed.manifest, Existing::Skip, &key(1), false, &frames, names)
            .unwrap();
    assert_eq!((skipped.broken.count, skipped.broken.to_string()), (2, "f_0006.png, f_0007.png".into()));
}

#[test]
fn a_black_frame_that_is_kept_is_reported_and_not_kept_where_it_is_refused() {
    let mut bed = Bed::new();
    bed.land(key(1), 1, PNG);
    let file = bed.manifest.frames[&1][0].files.clone();
    bed.manifest.record(&bed.folder, &key(1), 1, file, vec![Suspicion::Black]).unwrap();
    bed.land(key(1), 2, PNG);
    let manifest = Manifest::load(&bed.folder, "shot").unwrap();
    let frames = "1-2".parse().unwrap();
    let found =
        find_frames_to_render(&bed.folder, &manifest, Existing::Continue, &key(1), false, &frames, names)
            .unwrap();
    assert_eq!((found.kept, found.suspicious.black.unwrap().to_string()), (2, "1".to_owned()));
    bed.refuse_black = true;
    assert_eq!(bed.ask(Existing::Continue, 1, "1-2"), Ok(("1".into(), 1, 0)));
    assert_eq!(bed.ask(Existing::Skip, 1, "1-2"), Ok((String::new(), 2, 0)));
}

#[test]
fn a_damaged_note_costs_only_its_lines() {
    let mut bed = Bed::new();
    bed.land(key(1), 1, PNG);
    bed.land(key(1), 2, PNG);
    let place = bed.dir.path().join(".kiln/shot.jsonl");
    let mut text = std::fs::read(&place).unwrap();
    // No text at all within the first line, and none behind the last.
    text[20] = 0xff;
    text.extend([0xff, 0, b'\n', b'{']);
    std::fs::write(&place, &text).unwrap();
    let error = bed.ask(Existing::Continue, 1, "1-2").unwrap_err();
    assert!(error.contains("1 of the files") && error.contains("f_0001.png"), "{error}");
    // Without its note even an empty file is a stranger's.
    bed.put(1, b"");
    let error = bed.ask(Existing::Continue, 1, "1-2").unwrap_err();
    assert!(error.contains("1 empty or cut off"), "{error}");
    bed.land(key(1), 3, PNG);
    assert_eq!(bed.ask(Existing::Continue, 1, "2-3"), Ok((String::new(), 2, 0)));
}

#[test]
fn a_cut_line_costs_only_itself() {
    let mut bed = Bed::new();
    bed.land(key(1), 1, b"one");
    let place = bed.dir.path().join(".kiln/shot.jsonl");
    let mut text = std::fs::read_to_string(&place).unwrap();
    text.push_str("{\"key\":\"");
    std::fs::write(&place, text).unwrap();
    bed.land(key(1), 2, b"two");
    assert_eq!(bed.ask(Existing::Continue, 1, "1-3"), Ok(("3".into(), 2, 0)));
}

/// The save that asked for a frame last decides, whichever job the frame is from.
#[test]
fn a_frame_that_comes_again_from_an_earlier_save_stays_as_late_as_it_was_wanted() {
    let mut bed = Bed::new();
    bed.land(saved(1, 30), 1, PNG);
    // A job of the same frames, made before, is fetched late: the same picture, with another hour in its file.
    bed.land(saved(1, 10), 1, b"the same picture");
    let late = bed.look(Existing::Continue, &saved(2, 20), "1").unwrap_err();
    assert!(matches!(late, ExistingError::Newer(_)), "{late}");
    assert_eq!(bed.counts(Existing::Continue, &saved(2, 40), "1"), (0, 1, 0));
}

#[test]
fn a_break_between_a_note_and_its_file_leaves_the_frame_of_before_known() {
    let mut bed = Bed::new();
    bed.land(saved(1, 10), 1, PNG);
    bed.land(saved(2, 20), 1, b"of the second save");
    // The note is there, the file is still the first one.
    bed.put(1, PNG);
    assert_eq!(bed.counts(Existing::Continue, &saved(2, 30), "1"), (0, 1, 0), "replaced, and no stranger's");
    assert_eq!(
        bed.counts(Existing::Continue, &saved(1, 40), "1"),
        (0, 0, 0),
        "the frame itself, but for its note"
    );
    let error = bed.look(Existing::Continue, &of("/q/shot.blend", 9, 50, None), "1").unwrap_err();
    assert!(matches!(error, ExistingError::Foreign { .. }), "{error}");
    bed.put(1, b"painted");
    let error = bed.look(Existing::Continue, &saved(2, 30), "1").unwrap_err();
    assert!(matches!(error, ExistingError::Foreign { .. }), "{error}");
}

#[test]
fn what_is_seen_is_noted_once() {
    let mut bed = Bed::new();
    bed.land(saved(1, 10), 1, PNG);
    let lines =
        |bed: &Bed| std::fs::read_to_string(bed.dir.path().join(".kiln/shot.jsonl")).unwrap().lines().count();
    let mut see = |read_ms, frame| bed.manifest.see(&bed.folder, &saved(1, read_ms), frame).unwrap();
    see(10, Some(1));
    see(5, Some(1));
    see(20, Some(1));
    see(15, Some(1));
    see(20, None);
    assert_eq!(lines(&bed), 2, "the frame, and one later save");
    let late = bed.look(Existing::Continue, &saved(2, 15), "1").unwrap_err();
    assert!(matches!(late, ExistingError::Newer(_)), "{late}");
}
