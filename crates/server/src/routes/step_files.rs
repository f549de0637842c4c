//! The files of a step, for tasks of other steps.

use axum::extract::State;
use kiln_api::{StepFile, StepFilesPage};
use kiln_store::FileFilter;
use kiln_types::{JobId, ProductKind, StepIndex, TaskIndex};
use serde::Deserialize;

use super::{
    document::NotFound,
    job_data::{PageLimit, position},
    jobs::row,
};
use crate::{
    app::AppState,
    problem::{JsonAnswer, Path, ProblemResponse, Query},
};

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct StepFilesQuery {
    /// Only those of this frame.
    frame: Option<i32>,
    /// Those committed after this sequence; 0 where absent.
    #[serde(default)]
    #[param(required = false)]
    after: u64,
    /// At most this number; 500 where absent.
    #[serde(default)]
    #[param(value_type = Option<u32>, required = false, minimum = 1, maximum = 5000)]
    limit: PageLimit,
}

/// The committed files of a step, the oldest commit first, without those that were replaced or removed. A step that makes a
/// bundle has none.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/steps/{step}/files", operation_id = "step_files", tag = "jobs",
    params(("id" = JobId, Path), ("step" = StepIndex, Path), StepFilesQuery),
    responses((status = 200, body = StepFilesPage), NotFound))]
pub(super) async fn list(
    State(app): AppState,
    Path((id, step)): Path<(JobId, StepIndex)>,
    Query(query): Query<StepFilesQuery>,
) -> JsonAnswer<StepFilesPage> {
    let job = row(&app, id).await?;
    let spec = job
        .plan
        .get(step)
        .ok_or_else(|| ProblemResponse::not_found(format!("Job {id} has no step {step}.")))?;
    let tasks = match query.frame {
        None => None,
        Some(frame) => {
            let position = position(&job.spec.frames, id, frame)?.0;
            let parts = spec.space.per_frame().map(|parts| u32::from(parts.get())).ok_or_else(|| {
                ProblemResponse::not_found(format!("Step {step} of job {id} is not about single frames."))
            })?;
            let first = position.saturating_mul(parts);
            Some((TaskIndex(first), TaskIndex(first.saturating_add(parts - 1))))
        }
    };
    let outputs = spec.product == ProductKind::Output;
    let filter = FileFilter { job: id, step, outputs, tasks, after_seq: query.after };
    let limit = query.limit.get();
    let rows = app.store.step_files(&filter, limit).await?;
    let more = rows.len() == limit as usize;
    let file = |row: kiln_store::FileRow| StepFile {
        sequence: row.seq,
        index: row.index,
        frame: job.plan.frame_of(&job.spec.frames, step, row.index),
        part: job.plan.part_of(step, row.index),
        generation: row.generation,
        path: row.file.path,
        hash: row.file.hash,
        size: row.file.size,
    };
    Ok(axum::Json(StepFilesPage { files: rows.into_iter().map(file).collect(), more }))
}
