use kiln_types::{FileFormat, OutputRole, PixelReport};

use super::*;

struct Bed {
    dir: tempfile::TempDir,
    folder: OutFolder,
    manifest: Manifest,
    refuse_black: bool,
}

/// A whole picture.
const PNG: &[u8] = b"\x89PNG\x0d\x0a\x1a\x0a\x00\x00\x00\x0dIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x00\x00\x00\x00:~\x9bU\x00\x00\x00\x0aIDATx\x9cc\xa8\x07\x00\x00\x81\x00\x80\xd3\x94SJ\x00\x00\x00\x00IEND\xaeB`\x82";

fn key(n: u8) -> SessionKey {
    SessionKey(BlobHash::of(&[n]))
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
    fn land(&mut self, key: SessionKey, frame: i32, bytes: &[u8]) {
        let file = OutputFile {
            path: names(frame).remove(0),
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
        let written = Written::new(&file, part.stamp().unwrap());
        self.manifest.record(&self.folder, key, frame, vec![written], Vec::new()).unwrap();
        OutFolder::place(&part, &file.path, true).unwrap();
    }

    fn foreign(&self, frame: i32) {
        self.put(frame, b"mine");
    }

    fn put(&self, frame: i32, bytes: &[u8]) {
        std::fs::write(self.dir.path().join(names(frame)[0].to_path()), bytes).unwrap();
    }

    fn ask(&self, mode: Existing, k: u8, frames: &str) -> Result<(String, u32, u32), String> {
        // Read anew, as the next run of the program does.
        let manifest = Manifest::load(&self.folder, "shot").unwrap();
        let frames = frames.parse().unwrap();
        to_render(&self.folder, &manifest, mode, key(k), self.refuse_black, &frames, names)
            .map(|r| (r.frames.map(|f| f.to_string()).unwrap_or_default(), r.kept, r.skipped))
            .map_err(|error| error.to_string())
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
fn what_is_there_tells_by_which_key_it_was_made() {
    let mut bed = Bed::new();
    let recorded = |bed: &Bed, keys: [u8; 2], frames: &str| {
        let manifest = Manifest::load(&bed.folder, "shot").unwrap();
        super::recorded(&bed.folder, &manifest, keys.map(key), &frames.parse().unwrap())
    };
    assert_eq!(recorded(&bed, [1, 2], "1-4"), None);
    bed.land(key(2), 1, b"one");
    bed.land(key(1), 2, b"two");
    assert_eq!(recorded(&bed, [1, 2], "1-4"), Some(key(1)), "of as many, the better");
    assert_eq!(recorded(&bed, [1, 2], "1"), Some(key(2)));
    bed.land(key(2), 3, b"three");
    assert_eq!(recorded(&bed, [1, 2], "1-4"), Some(key(2)));
    assert_eq!(recorded(&bed, [1, 3], "1,3-4"), None);
    // Whoever takes the frames away begins anew.
    for frame in [1, 2, 3] {
        std::fs::remove_file(bed.dir.path().join(names(frame)[0].to_path())).unwrap();
    }
    assert_eq!(recorded(&bed, [1, 2], "1-4"), None);
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
        to_render(&bed.folder, &bed.manifest, Existing::Skip, key(1), false, &frames, names).unwrap();
    assert_eq!((skipped.broken.count, skipped.broken.to_string()), (2, "f_0006.png, f_0007.png".into()));
}

#[test]
fn a_black_frame_that_is_kept_is_reported_and_not_kept_where_it_is_refused() {
    let mut bed = Bed::new();
    bed.land(key(1), 1, PNG);
    let file = bed.manifest.frames[&1].files.clone();
    bed.manifest.record(&bed.folder, key(1), 1, file, vec![Suspicion::Black]).unwrap();
    bed.land(key(1), 2, PNG);
    let manifest = Manifest::load(&bed.folder, "shot").unwrap();
    let frames = "1-2".parse().unwrap();
    let found = to_render(&bed.folder, &manifest, Existing::Continue, key(1), false, &frames, names).unwrap();
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
