//! The table of jobs.

use kiln_api::JobView;
use kiln_types::{
    DeviceClass, JobState, Owner, Project,
    duration::{measured, rough, rough_range},
};
use ratatui::{style::Style, text::Span};

use super::{
    look::ScreenLook,
    table::{Bar, Cell, Column, width},
};
use crate::output::{one_line, text::count};

pub fn columns(jobs: &[JobView]) -> Vec<Column> {
    let names = jobs.iter().map(|job| width(&job.name)).max().unwrap_or(0);
    let names = u16::try_from(names).unwrap_or(u16::MAX);
    // The column is the first to be dropped if all priorities are the same.
    let mut priorities = jobs.iter().filter(|job| !job.state.is_end()).map(priority);
    let first = priorities.next();
    let prio = if priorities.any(|other| Some(other) != first) { 3 } else { 8 };
    vec![
        Column::fixed("ID", 1, jobs.iter().map(|job| job.id.to_string().len())).right(),
        Column::between("JOB", 0, 8, names.clamp(8, 32)),
        Column::fixed("STATE", 2, jobs.iter().map(|job| state(job).len())),
        Column::fixed("PRIO", prio, jobs.iter().map(|job| priority(job).len())).right(),
        Column::fixed("WHO", 7, jobs.iter().map(|job| width(&who(job)))),
        Column::between("PROGRESS", 3, 12, 45),
        Column::fixed("DONE", 4, jobs.iter().map(|job| done(job).len())).right(),
        Column::fixed("FAILED", 6, jobs.iter().map(|job| failed(job).len())).right(),
        Column::fixed("LEFT", 5, jobs.iter().map(|job| width(&left(job)))).right(),
    ]
}

pub fn cells(job: &JobView, look: ScreenLook) -> Vec<Cell> {
    let waits = job.waits_for.is_some() && !job.state.is_end();
    let of_state = if waits { look.warning() } else { look.job(job.state) };
    let quiet = if job.state.is_end() { look.dim() } else { Style::new() };
    vec![
        Cell::text(job.id.to_string(), look.dim()),
        Cell::text(job.name.clone(), if job.state.is_end() { quiet } else { look.bold() }),
        Cell::text(state(job), of_state),
        Cell::text(priority(job), quiet),
        Cell::text(who(job), look.dim()),
        Cell::Bar(bar(job, if job.state.is_end() { look.dim() } else { look.good() })),
        Cell::text(done(job), quiet),
        Cell::text(failed(job), look.bad()),
        Cell::text(left(job), quiet),
    ]
}

/// Returns whether something keeps the job from rendering.
pub fn has_trouble(job: &JobView) -> bool {
    job.reason.is_some() || (job.waits_for.is_some() && !job.state.is_end())
}

/// Returns the line below a selected job.
pub fn detail(job: &JobView, look: ScreenLook) -> Vec<Span<'static>> {
    if let Some(waits) = job.waits_for.as_ref().filter(|_| !job.state.is_end()) {
        return vec![Span::styled(one_line(&format!("waits: {waits}")), look.warning())];
    }
    if let Some(reason) = &job.reason {
        return vec![Span::styled(one_line(&reason.message), look.bad())];
    }
    let session = &job.spec.session;
    let device = if session.device == DeviceClass::Gpu { "any GPU" } else { session.device.as_str() };
    let mut said = vec![format!("Blender {} on {device}", session.blender)];
    if job.workers_busy > 0 {
        said.push(count(job.workers_busy, "worker"));
    }
    if let Some(mean) = job.mean_frame_s {
        said.push(format!("{} per frame", if mean < 10.0 { measured(mean) } else { rough(mean) }));
    }
    if let (Some(started), Some(ended)) = (job.started_ms, job.ended_ms) {
        said.push(format!("took {}", rough((ended - started) as f64 / 1000.0)));
    }
    if job.tasks.failed > 0 {
        said.push(format!("{} failed: r tries them again", count(job.tasks.failed, "frame")));
    } else if job.state.is_end() && job.tasks.cancelled > 0 {
        said.push(format!("{} not rendered", count(job.tasks.cancelled, "frame")));
    }
    vec![Span::styled(one_line(&said.join(" · ")), look.dim())]
}

fn state(job: &JobView) -> String {
    match job.state {
        state if state.is_end() => state.to_string(),
        _ if job.open_bake().is_some() => "baking".to_owned(),
        JobState::Queued | JobState::Running if job.waits_for.is_some() => "waits".to_owned(),
        state => state.to_string(),
    }
}

fn priority(job: &JobView) -> String {
    if job.state.is_end() { String::new() } else { job.spec.scheduling.priority.to_string() }
}

/// Returns the user and the project, if they were named.
fn who(job: &JobView) -> String {
    let owner = (job.owner != Owner::default()).then_some(&job.owner.0);
    let project = (job.project != Project::default()).then_some(&job.project.0);
    match (owner, project) {
        (Some(owner), Some(project)) => format!("{owner}/{project}"),
        (Some(one), None) | (None, Some(one)) => one.to_string(),
        (None, None) => String::new(),
    }
}

/// Returns the bar of the bake, and after it that of the frames.
fn bar(job: &JobView, style: Style) -> Bar {
    let baking = job.open_bake();
    let Some(step) = baking.or(job.steps.last()) else {
        return Bar { done: 0.0, failed: 0.0, style };
    };
    let total = f64::from(step.tasks.total.max(1));
    Bar { done: step.progress, failed: f64::from(step.tasks.failed) / total, style }
}

fn done(job: &JobView) -> String {
    format!("{}/{}", job.tasks.done, job.tasks.total)
}

fn failed(job: &JobView) -> String {
    if job.tasks.failed == 0 { String::new() } else { job.tasks.failed.to_string() }
}

fn left(job: &JobView) -> String {
    job.left
        .filter(|_| !job.state.is_end())
        .map(|left| rough_range(left.soonest_s, left.latest_s))
        .unwrap_or_default()
}
