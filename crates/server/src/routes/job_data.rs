//! The data of one job: tasks, attempts, outputs and the report.

use std::collections::{BTreeMap, BTreeSet};

use axum::{extract::State, http::HeaderMap, response::Response};
use kiln_api::{
    AttemptView, AttemptsPage, JobReport, OutputView, OutputsPage, ProblemCode, TaskView, TasksPage,
    WorkerShare,
};
use kiln_store::{AttemptRow, AttemptSelection, OutputRow, RetentionRow, TaskFilter};
use kiln_types::{
    AttemptId, AttemptState, FileFormat, JobId, OutputSet, RelPath, StepIndex, Suspicion, SuspiciousFrames,
    TaskIndex, TaskState,
};
use serde::Deserialize;
use utoipa::{
    IntoResponses,
    openapi::{self, RefOr},
};

use super::{
    body::{RangeHeaders, blob, range_responses},
    jobs::row,
    page::PageSize,
};
use crate::{
    app::AppState,
    clock::ago,
    problem::{Answer, JsonAnswer, Path, ProblemResponse, Query},
};

pub(super) type PageLimit = PageSize<500, 5000>;
/// Files read at once: more than one output set can hold, so that a page holds at least one whole set.
const OUTPUT_ROWS: usize = 2 * OutputSet::MAX_FILES;

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct TasksQuery {
    /// Only those of this step; where absent, of the step that renders the frames.
    #[param(value_type = Option<u16>)]
    step: Option<StepIndex>,
    /// Only those in this state.
    state: Option<TaskState>,
    /// Only those from this position on.
    #[serde(default)]
    #[param(required = false)]
    from: TaskIndex,
    /// At most this number; 500 where absent.
    #[serde(default)]
    #[param(value_type = Option<u32>, required = false, minimum = 1, maximum = 5000)]
    limit: PageLimit,
}

/// Tasks in the order of their positions.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/tasks", tag = "jobs", params(("id" = JobId, Path), TasksQuery),
    responses((status = 200, body = TasksPage)))]
pub(super) async fn tasks(
    State(app): AppState,
    Path(id): Path<JobId>,
    Query(which): Query<TasksQuery>,
) -> JsonAnswer<TasksPage> {
    let job = row(&app, id).await?;
    let limit = which.limit.get();
    let step = which.step.unwrap_or(job.plan.frames_step());
    let filter = TaskFilter { step, state: which.state, from: which.from };
    let rows = app.store.tasks(id, &filter, limit).await?;
    let next =
        if rows.len() == limit as usize { rows.last().map(|row| TaskIndex(row.index.0 + 1)) } else { None };
    let tasks = rows.into_iter().map(|row| TaskView {
        step: row.step,
        index: row.index,
        name: job.name_of(row.step, row.index),
        state: row.state,
        generation: row.generation,
        failures: row.failures,
        reason: row.reason.map(|reason| reason.message),
    });
    Ok(axum::Json(TasksPage { tasks: tasks.collect(), next }))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AttemptsQuery {
    /// Only those of this frame.
    frame: Option<i32>,
    /// Only those that failed or expired.
    #[serde(default)]
    #[param(required = false)]
    failed: bool,
    /// Only those in this state.
    state: Option<AttemptState>,
    /// Only older ones than this.
    before: Option<AttemptId>,
    /// At most this number; 500 where absent.
    #[serde(default)]
    #[param(value_type = Option<u32>, required = false, minimum = 1, maximum = 5000)]
    limit: PageLimit,
}

/// Attempts, newest first.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/attempts", tag = "jobs", params(("id" = JobId, Path), AttemptsQuery),
    responses((status = 200, body = AttemptsPage)))]
pub(super) async fn attempts(
    State(app): AppState,
    Path(id): Path<JobId>,
    Query(which): Query<AttemptsQuery>,
) -> JsonAnswer<AttemptsPage> {
    let job = row(&app, id).await?;
    let limit = which.limit.get();
    let task = match which.frame {
        Some(frame) => Some((job.plan.frames_step(), position(&job.spec.frames, id, frame)?)),
        None => None,
    };
    let failed = [AttemptState::Failed, AttemptState::Expired];
    let states = match which.state {
        Some(state) if which.failed && !failed.contains(&state) => {
            return Ok(axum::Json(AttemptsPage { attempts: Vec::new(), next: None }));
        }
        Some(state) => vec![state],
        None if which.failed => failed.to_vec(),
        None => Vec::new(),
    };
    let filter = AttemptSelection { task, states, before: which.before, ..AttemptSelection::default() };
    let rows = app.store.attempts(id, &filter, limit).await?;
    let next = if rows.len() == limit as usize { rows.last().map(|row| row.id) } else { None };
    let names = app.store.worker_names(rows.iter().map(|row| row.worker)).await?;
    let shown = |row: AttemptRow| AttemptView {
        id: row.id,
        step: row.task.step,
        index: row.task.index,
        name: job.name_of(row.task.step, row.task.index),
        generation: row.generation,
        worker: names.get(&row.worker).cloned().unwrap_or_else(|| row.worker.to_string()),
        slot: row.slot,
        state: row.state,
        opened_ms: row.opened_ms,
        started_ms: row.started_ms,
        ended_ms: row.ended_ms,
        seconds: row.seconds,
        peak_memory: row.peak_memory,
        failure: row.failure,
    };
    Ok(axum::Json(AttemptsPage { attempts: rows.into_iter().map(shown).collect(), next }))
}

pub(super) fn position(frames: &kiln_types::FrameSet, job: JobId, frame: i32) -> Answer<TaskIndex> {
    let index = frames.index_of(frame);
    index.map(TaskIndex).ok_or_else(|| {
        ProblemResponse::not_found(format!("Job {job} has no frame {frame}; its frames are {frames}."))
    })
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct OutputsQuery {
    /// Those committed after this sequence; 0 where absent.
    #[serde(default)]
    #[param(required = false)]
    after: u64,
    /// At most this number of output sets; 500 where absent.
    #[serde(default)]
    #[param(value_type = Option<u32>, required = false, minimum = 1, maximum = 5000)]
    limit: PageLimit,
}

/// Output sets of every generation, in the order of their commits.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/outputs", tag = "jobs", params(("id" = JobId, Path), OutputsQuery),
    responses((status = 200, body = OutputsPage)))]
pub(super) async fn outputs(
    State(app): AppState,
    Path(id): Path<JobId>,
    Query(which): Query<OutputsQuery>,
) -> JsonAnswer<OutputsPage> {
    let job = row(&app, id).await?;
    let limit = which.limit.get() as usize;
    let mut outputs: Vec<OutputView> = Vec::new();
    let mut after = which.after;
    let more = loop {
        let rows = app.store.outputs(id, after, OUTPUT_ROWS as u32).await?;
        let full = rows.len() == OUTPUT_ROWS;
        let mut sets = group(rows, &job.kept)?;
        if full {
            // The last set may be incomplete; it is read again with the next rows.
            sets.pop();
        }
        let room = limit - outputs.len();
        let cut = sets.len() > room;
        sets.truncate(room);
        outputs.append(&mut sets);
        after = outputs.last().map_or(after, |last| last.sequence);
        if cut || !full || outputs.len() == limit {
            break cut || full;
        }
    };
    Ok(axum::Json(OutputsPage { outputs, more }))
}

/// Groups files to output sets: the files of one attempt are adjacent.
fn group(rows: Vec<OutputRow>, kept: &RetentionRow) -> Answer<Vec<OutputView>> {
    let mut groups: Vec<(OutputRow, Vec<kiln_types::OutputFile>)> = Vec::new();
    for mut row in rows {
        let file = row.file.clone();
        match groups.last_mut() {
            Some((last, files)) if last.attempt == row.attempt && last.task == row.task => {
                files.push(file);
                last.seq = row.seq;
            }
            _ => {
                row.file = file.clone();
                groups.push((row, vec![file]));
            }
        }
    }
    let view = |(row, files): (OutputRow, Vec<kiln_types::OutputFile>)| {
        let files = OutputSet::new(files)
            .map_err(|error| ProblemResponse::internal("A stored output set is damaged", error))?;
        Ok(OutputView {
            sequence: row.seq,
            step: row.task.step,
            index: row.task.index,
            frame: row.frame,
            generation: row.generation,
            files,
            gone_ms: gone(kept, row.seq),
        })
    };
    groups.into_iter().map(view).collect()
}

/// Returns the time at which the output of this sequence was removed.
fn gone(kept: &RetentionRow, sequence: u64) -> Option<i64> {
    kept.outputs_gone_ms.filter(|_| sequence <= kept.outputs_gone_seq)
}

pub(super) fn outputs_gone(job: JobId, at_ms: i64) -> ProblemResponse {
    ProblemResponse::new(
        ProblemCode::Gone,
        format!("The frames of job {job} were removed {}; render them again.", ago(at_ms)),
    )
}

struct Picture;

impl IntoResponses for Picture {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        let types: BTreeSet<&str> = FileFormat::ALL.iter().map(|format| media_type(*format)).collect();
        range_responses(&types.into_iter().collect::<Vec<_>>())
    }
}

/// The newest committed file of this name.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/files/{*path}", tag = "jobs",
    params(("id" = JobId, Path), ("path" = RelPath, Path, description = "Below the output folder; may hold slashes"), RangeHeaders),
    responses(Picture))]
pub(super) async fn file(
    State(app): AppState,
    Path((id, path)): Path<(JobId, RelPath)>,
    headers: HeaderMap,
) -> Answer<Response> {
    let job = row(&app, id).await?;
    let output = app.store.output_by_path(id, &path).await?;
    let output = output.ok_or_else(|| {
        ProblemResponse::not_found(format!(
            "Job {id} has no file {path} yet; /api/v1/jobs/{id}/outputs lists what it has."
        ))
    })?;
    if let Some(at_ms) = gone(&job.kept, output.seq) {
        return Err(outputs_gone(id, at_ms));
    }
    blob(&app.blobs, &output.file.hash, &headers, media_type(output.file.format)).await
}

fn media_type(format: FileFormat) -> &'static str {
    match format {
        FileFormat::Png => "image/png",
        FileFormat::Jpeg => "image/jpeg",
        FileFormat::OpenExr | FileFormat::OpenExrMultilayer => "image/x-exr",
        FileFormat::Tiff => "image/tiff",
        FileFormat::Webp => "image/webp",
        FileFormat::Bmp => "image/bmp",
        FileFormat::Targa | FileFormat::TargaRaw => "image/x-tga",
        FileFormat::Hdr => "image/vnd.radiance",
        FileFormat::Iris => "image/x-rgb",
        FileFormat::Cineon => "image/x-cineon",
        FileFormat::Dpx => "image/dpx",
        FileFormat::Jp2 => "image/jp2",
        FileFormat::J2c => "image/j2c",
    }
}

/// The report of a job: the share of each worker in its frames.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/report", tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, body = JobReport)))]
pub(super) async fn report(State(app): AppState, Path(id): Path<JobId>) -> JsonAnswer<JobReport> {
    let job = row(&app, id).await?;
    let rows = app.store.job_report(id, job.plan.frames_step()).await?;
    let frames: u64 = rows.iter().map(|row| row.frames).sum();
    let render_s: f64 = rows.iter().map(|row| row.seconds).sum();
    let first = rows.iter().filter_map(|row| row.first_start_ms).min();
    let last = rows.iter().filter_map(|row| row.last_end_ms).max();
    let wall_s = first.zip(last).map_or(0.0, |(first, last)| (last - first).max(0) as f64 / 1000.0);
    let gain = gain(&rows, wall_s);
    let workers = rows.into_iter().map(|row| WorkerShare {
        worker: row.name.unwrap_or_else(|| row.worker.to_string()),
        frames: u32::try_from(row.frames).unwrap_or(u32::MAX),
        errors: u32::try_from(row.errors + row.expired).unwrap_or(u32::MAX),
        seconds: row.seconds,
        share: if frames > 0 { row.frames as f64 / frames as f64 } else { 0.0 },
    });
    let suspicious = suspicious(app.store.suspicious_outputs(id).await?);
    Ok(axum::Json(JobReport { workers: workers.collect(), wall_s, render_s, gain, suspicious }))
}

/// Collects the suspicious frames of files in which those of one frame are adjacent.
fn suspicious(rows: Vec<OutputRow>) -> SuspiciousFrames {
    let frames = rows.chunk_by(|one, next| one.task == next.task).filter_map(|files| {
        let pixels = files.iter().map(|row| (&row.file.path, &row.file.role, row.file.pixels));
        Some((files.first()?.frame, Suspicion::of(pixels)))
    });
    SuspiciousFrames::collect(frames)
}

/// Returns the factor by which the farm was faster than its best worker alone with all its slots, by the frames that each
/// delivered per second of its own time. One worker alone has a gain of 1, whatever its slots.
fn gain(rows: &[kiln_store::WorkerTotals], wall_s: f64) -> f64 {
    let frames: u64 = rows.iter().map(|row| row.frames).sum();
    let speed = |row: &kiln_store::WorkerTotals| {
        let seconds = (row.last_end_ms? - row.first_start_ms?) as f64 / 1000.0;
        (row.frames > 0 && seconds > 0.0).then(|| row.frames as f64 / seconds)
    };
    let best = rows.iter().filter_map(speed).fold(0.0, f64::max);
    if best > 0.0 && wall_s > 0.0 { frames as f64 / best / wall_s } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use kiln_types::WorkerId;

    use super::*;

    fn share(frames: u64, from_s: i64, to_s: i64) -> kiln_store::WorkerTotals {
        kiln_store::WorkerTotals {
            worker: WorkerId::MIN,
            name: None,
            frames,
            errors: 0,
            expired: 0,
            seconds: 1000.0,
            first_start_ms: Some(from_s * 1000),
            last_end_ms: Some(to_s * 1000),
        }
    }

    #[test]
    fn gain_is_over_the_best_worker_with_all_its_slots() {
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(near(gain(&[share(60, 0, 30)], 30.0), 1.0));
        // 30 and 20 frames in 60 s: the better one alone would take 100 s.
        assert!(near(gain(&[share(30, 0, 60), share(20, 0, 60)], 60.0), 100.0 / 60.0));
        assert!(near(gain(&[share(0, 0, 0)], 0.0), 0.0));
        assert!(near(gain(&[], 0.0), 0.0));
    }
}
