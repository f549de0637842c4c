//! The kind of step that only tests have. A task that makes an intermediate writes a file that names its job, frame, part
//! and generation, and the hashes of its inputs; any other lists and hashes its inputs.

use std::{env, fmt::Write as _, fs, io, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use kiln_api::{AssignedTask, StepWork};
use kiln_host::PlannedFile;
use kiln_types::{
    BlobHash, ColorDepth, Failure, FailureCause, FileFormat, Generation, OutputRole, ProductKind, RelPath,
};

use super::work::{DirectRoom, DirectWork};
use crate::{output::OutputFiles, scratch::on_disk};

/// Bytes of a part behind its first line.
const PART_BYTES: usize = 300_000;
/// Pixels of a row of the picture that holds a list.
const ROW: usize = 64;
/// The variable that holds the time that a task takes, in milliseconds.
const TIME: &str = "KILN_TEST_STEP_MS";
/// Samples of progress in that time.
const SAMPLES: u32 = 10;

#[derive(Debug)]
pub(super) struct TestStep {
    frame: Option<i32>,
    part: u16,
    generation: Generation,
    product: ProductKind,
}

impl TestStep {
    pub(super) fn new(step: &StepWork, task: &AssignedTask) -> Self {
        Self {
            frame: task.frame,
            part: task.part.unwrap_or(0),
            generation: task.generation,
            product: step.product,
        }
    }

    /// Writes the file of the task. Blocking.
    fn write(&self, room: DirectRoom) -> io::Result<OutputFiles> {
        let Self { frame, part, generation, product } = self;
        let task = room.head.task;
        let frame = frame.map_or_else(|| "all".to_owned(), |frame| frame.to_string());
        let (name, bytes) = if *product != ProductKind::Intermediate {
            (frame, list(&room)?.into_bytes())
        } else {
            let mut line = format!(
                "job {} step {} frame {frame} part {part} generation {generation}",
                task.job, task.step
            );
            for (_, place) in room.inputs.files() {
                let _ = write!(line, " of {}", BlobHash::of(&fs::read(place)?));
            }
            line.push('\n');
            (format!("{frame}-{part}"), part_of(line))
        };
        let is_picture = *product == ProductKind::Output;
        let name = format!("test/{}/{name}{}", task.step, if is_picture { ".bmp" } else { "" });
        let path = room.folder.path().join(&name);
        fs::create_dir_all(path.parent().unwrap_or(room.folder.path()))?;
        if !is_picture {
            fs::write(path, bytes)?;
            return Ok(OutputFiles::Folder(room.folder));
        }
        let height = bytes.len().div_ceil(3 * ROW).max(1);
        fs::write(path, picture(bytes, height))?;
        let path = RelPath::new(&name).map_err(io::Error::other)?;
        let planned = PlannedFile {
            scratch: path.clone(),
            path,
            role: OutputRole::Main { view: None },
            format: FileFormat::Bmp,
            depth: ColorDepth::Eight,
            width: ROW as u32,
            height: height as u32,
        };
        Ok(OutputFiles::Planned { out: room.folder, planned: vec![planned], refuse_black: false })
    }
}

impl DirectWork for TestStep {
    fn run(self: Arc<Self>, room: DirectRoom) -> BoxFuture<'static, Result<OutputFiles, Failure>> {
        Box::pin(async move {
            let time = env::var(TIME).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
            for sample in 1..=SAMPLES {
                tokio::time::sleep(Duration::from_millis(time) / SAMPLES).await;
                room.monitor.progress(Some((sample, SAMPLES)));
            }
            room.monitor.log(&format!("test step of task {}\n", room.head.task));
            let written = on_disk(move || self.write(room)).await;
            written.map_err(|error| Failure::new(FailureCause::Other, error.to_string()))
        })
    }
}

/// Returns the bytes of a part: the line, and bytes that are computed from it.
fn part_of(line: String) -> Vec<u8> {
    let mut bytes = line.into_bytes();
    let end = bytes.len() + PART_BYTES;
    while bytes.len() < end {
        let next = *BlobHash::of(&bytes[bytes.len().saturating_sub(200)..]).as_bytes();
        bytes.extend(next);
    }
    bytes.truncate(end);
    bytes
}

/// A line for each input: its path, the hash of its bytes, and the line that it begins with.
fn list(room: &DirectRoom) -> io::Result<String> {
    let mut list = String::new();
    for ((_, _, path), place) in room.inputs.files() {
        let bytes = fs::read(place)?;
        let line = bytes.split(|byte| *byte == b'\n').next().filter(|line| line.is_ascii());
        let line = String::from_utf8_lossy(line.unwrap_or_default());
        let _ = writeln!(list, "{path} {} {line}", BlobHash::of(&bytes));
    }
    Ok(list)
}

/// A bitmap whose pixels are the bytes.
fn picture(bytes: Vec<u8>, height: usize) -> Vec<u8> {
    let size = 3 * ROW * height;
    let mut picture = b"BM".to_vec();
    for number in [54 + size, 0, 54, 40, ROW, height, 0x18_0001, 0, size, 2835, 2835, 0, 0] {
        picture.extend((number as u32).to_le_bytes());
    }
    picture.extend(&bytes);
    picture.resize(54 + size, b' ');
    picture
}
