//! `kiln jobs`: lists, shows and changes jobs.

use kiln_api::{ChangeJob, JobView, RetentionState};
use kiln_client::{AttemptFilter, Client, ClientError, JobFilter, submission::failed_tasks};
use kiln_types::{
    ArchivedFilter, AttemptId, AttemptState, DeviceClass, GpuUse, JobId, JobRequirements, JobScheduling,
    JobSpec, RenderSettings, Resolution,
};
use serde_json::json;

use super::{Context, attach, failures};
use crate::{
    args::{At, FarmArgs, Jobs, JobsArgs, JobsCommand, ListArgs, LogsArgs, OrNone, SomeJobs},
    exit::{CommandError, Exit, Outcome},
    failed::by_reason,
    farm,
    output::{
        bake::{progress, unrendered},
        explain::{explanation, lacks, left_of},
        suspicious::summary,
        table::table,
        text::{clock, count, measured, moment},
    },
    size::ByteSize,
};

pub async fn run(context: &Context, args: JobsArgs) -> Outcome<Exit> {
    let Some(command) = args.command else {
        return list(context, &args.list, &args.farm).await;
    };
    let open = |farm: &FarmArgs| farm::need(&context.settings(farm)?);
    match command {
        JobsCommand::List { list: args, farm } => return list(context, &args, &farm).await,
        JobsCommand::Show(job) => return show(context, &open(&job.farm)?, job.id).await,
        JobsCommand::Explain(job) => return explain(context, &open(&job.farm)?, job.id).await,
        JobsCommand::Failures(job) => return failures::list(context, &open(&job.farm)?, job.id).await,
        JobsCommand::Wait(args) => return attach::wait(context, args).await,
        JobsCommand::Fetch(args) => return attach::fetch(context, args).await,
        JobsCommand::Logs(args) => return logs(context, &open(&args.job.farm)?, &args).await,
        JobsCommand::Cancel(job) => {
            let client = open(&job.farm)?;
            client.cancel(job.id).await?;
            return print_change(context, &client, job.id, "is cancelled").await;
        }
        JobsCommand::Pause(job) => {
            let client = open(&job.farm)?;
            client.pause(job.id).await?;
            return print_change(context, &client, job.id, "is paused").await;
        }
        JobsCommand::Resume(job) => {
            let client = open(&job.farm)?;
            client.resume(job.id).await?;
            return print_change(context, &client, job.id, "continues").await;
        }
        JobsCommand::Set(args) => {
            let client = open(&args.job.farm)?;
            let change = ChangeJob {
                priority: args.priority,
                max_workers: args.max_workers.map(|OrNone(most)| most),
                after: args.after.map(|Jobs(jobs)| jobs),
                not_before_ms: args.at.map(|At(at_ms)| at_ms),
            };
            let job = client.change(args.job.id, &change).await?;
            context.output.done(&job, &format!("Job {}: {}.", job.id, scheduling(&job.spec.scheduling)));
            Ok(Exit::Done)
        }
        JobsCommand::Retry(job) => {
            let client = open(&job.farm)?;
            client.retry(job.id).await?;
            return print_change(context, &client, job.id, "tries its failed frames again").await;
        }
        JobsCommand::Rerender { bake: true, job, .. } => {
            let client = open(&job.farm)?;
            client.rebake(job.id).await?;
            return print_change(context, &client, job.id, "bakes again, then renders every frame").await;
        }
        JobsCommand::Rerender { frames, job, .. } => {
            let client = open(&job.farm)?;
            client.rerender(job.id, frames).await?;
            return print_change(context, &client, job.id, "renders these frames again").await;
        }
        JobsCommand::Extend { frames, job } => {
            let client = open(&job.farm)?;
            client.extend(job.id, frames).await?;
            return print_change(context, &client, job.id, "has more frames").await;
        }
        JobsCommand::Archive(jobs) => {
            let client = open(&jobs.farm)?;
            change_each(context, &jobs, "archived", async |id| client.archive(id).await).await
        }
        JobsCommand::Unarchive(jobs) => {
            let client = open(&jobs.farm)?;
            change_each(context, &jobs, "back in the list", async |id| client.unarchive(id).await).await
        }
        JobsCommand::Delete { force, jobs } => {
            let client = open(&jobs.farm)?;
            change_each(context, &jobs, "deleted", async |id| client.delete(id, force).await).await
        }
    }
}

/// Applies a change to several jobs. A refusal does not stop the others; the first one is the outcome.
async fn change_each(
    context: &Context,
    jobs: &SomeJobs,
    what: &str,
    change: impl AsyncFn(JobId) -> Result<(), ClientError>,
) -> Outcome<Exit> {
    let (mut done, mut refused) = (Vec::new(), None);
    for id in &jobs.ids {
        match change(*id).await {
            Ok(()) => done.push(*id),
            Err(error) if refused.is_none() => refused = Some(error),
            Err(error) => context.output.warning(&error.to_string()),
        }
    }
    if let [first, more @ ..] = &done[..] {
        let ids = more.iter().fold(first.to_string(), |all, id| format!("{all}, {id}"));
        let (word, is) = if more.is_empty() { ("Job", "is") } else { ("Jobs", "are") };
        context.output.done(&json!({ "jobs": done, "are": what }), &format!("{word} {ids} {is} {what}."));
    }
    refused.map_or(Ok(Exit::Done), |error| Err(error.into()))
}

async fn print_change(context: &Context, client: &Client, id: JobId, what: &str) -> Outcome<Exit> {
    let job = client.job(id).await?;
    context.output.done(&job, &format!("Job {id} {what}."));
    Ok(Exit::Done)
}

async fn list(context: &Context, args: &ListArgs, farm: &FarmArgs) -> Outcome<Exit> {
    let client = farm::need(&context.settings(farm)?)?;
    let archived = match (args.archived, args.all) {
        (true, _) => ArchivedFilter::Only,
        (false, true) => ArchivedFilter::All,
        (false, false) => ArchivedFilter::No,
    };
    let mut which = JobFilter {
        states: args.state.clone(),
        user: args.user.clone(),
        project: args.project.clone(),
        archived,
        ..JobFilter::default()
    };
    let filtered = !which.states.is_empty() || which.user.is_some() || which.project.is_some();
    let mut jobs: Vec<JobView> = Vec::new();
    loop {
        let left = args.limit - u32::try_from(jobs.len()).unwrap_or(u32::MAX).min(args.limit);
        which.limit = Some(left.min(500));
        let page = client.jobs(&which).await?;
        let empty = page.jobs.is_empty();
        jobs.extend(page.jobs);
        which.before = page.next;
        if which.before.is_none() || empty || jobs.len() >= args.limit as usize {
            break;
        }
    }
    jobs.truncate(args.limit as usize);
    context.output.result(&json!({ "jobs": jobs }), || {
        if jobs.is_empty() {
            return match archived {
                _ if filtered => "There are no such jobs; `kiln jobs` lists all.".to_owned(),
                ArchivedFilter::Only => "No job is archived. `kiln jobs archive ID` archives one.".to_owned(),
                _ => "There are no jobs. `kiln submit shot.blend` submits one.".to_owned(),
            };
        }
        table(
            &[">ID", "NAME", "USER", ">PRIO", "STATE", ">FRAMES", ">FAILED", ">LEFT", "BLENDER", "MADE"],
            jobs.iter().map(|job| {
                vec![
                    job.id.to_string(),
                    job.name.clone(),
                    job.owner.to_string(),
                    job.spec.scheduling.priority.to_string(),
                    match &job.waits_for {
                        Some(_) if !job.state.is_end() => format!("{} (waits)", job.state),
                        None if job.open_bake().is_some() => format!("{} (bakes)", job.state),
                        _ => job.state.to_string(),
                    },
                    format!("{}/{}", job.tasks.done, job.tasks.total),
                    job.tasks.failed.to_string(),
                    job.seconds_left.map(clock).unwrap_or_default(),
                    job.spec.session.blender.to_string(),
                    moment(job.created_ms),
                ]
            }),
        )
    });
    Ok(Exit::Done)
}

async fn show(context: &Context, client: &Client, id: JobId) -> Outcome<Exit> {
    let job = client.job(id).await?;
    let report = client.report(id).await?;
    let failed = failed_tasks(client, &job).await?;
    let failures =
        if job.tasks.failed > 0 { failures::of_failed_frames(client, id, &failed).await? } else { None };
    let attempts = if context.output.reader() == crate::output::OutputMode::Json {
        client.all_attempts(id, AttemptFilter::default()).await?
    } else {
        Vec::new()
    };
    let value = json!({ "job": job, "report": report, "failed": failed, "attempts": attempts });
    context.output.result(&value, || {
        let mut text = describe(&job);
        if !report.workers.is_empty() {
            text.push('\n');
            text.push_str(&super::closing_table(&report));
            text.push('\n');
        }
        for line in summary(&report.suspicious, job.tasks.total) {
            text.push_str(&format!("\n{line}"));
        }
        for (reason, frames) in by_reason(&failed) {
            text.push_str(&format!("\n{frames} failed: {reason}"));
        }
        if let Some(failures) = &failures {
            text.push_str(&format!("\n\n{failures}"));
        }
        if let Some(why) = unrendered(&job) {
            text.push_str(&format!("\n{why}"));
        }
        text
    });
    Ok(Exit::Done)
}

async fn explain(context: &Context, client: &Client, id: JobId) -> Outcome<Exit> {
    let (job, why) = (client.job(id).await?, client.explain(id).await?);
    context.output.result(&json!({ "job": id, "explanation": why }), || explanation(&job, &why));
    Ok(Exit::Done)
}

/// Describes a job, a line for each property.
fn describe(job: &JobView) -> String {
    let spec = &job.spec;
    let session = &spec.session;
    let mut lines = vec![("Job", format!("{} {}", job.id, job.name)), ("State", job.state.to_string())];
    if let Some(reason) = &job.reason {
        lines.push(("Reason", reason.message.clone()));
    }
    if let Some(waits) = &job.waits_for {
        lines.push(("Waits", waits.to_string()));
    }
    for unmet in &job.unmet {
        lines.push(("", lacks(unmet)));
    }
    if let Some(step) = job.bake() {
        lines.push(("Bake", format!("{}: {}", spec.bake.join(", "), progress(job, step))));
    }
    let counts = job.tasks;
    lines.push((
        "Frames",
        format!(
            "{}: {} done of {}, {} failed, {} running",
            spec.frames, counts.done, counts.total, counts.failed, counts.running
        ),
    ));
    if spec.refuse_black {
        lines.push(("Refuses", "frames that are entirely black or transparent".to_owned()));
    }
    lines.push(("Order", spec.order.to_string()));
    lines.push(("Scheduling", scheduling(&spec.scheduling)));
    let requirements = requirements(&spec.requirements);
    if !requirements.is_empty() {
        lines.push(("Requirements", requirements.join(", ")));
    }
    lines.push(("Blender", format!("{} (the file is from {})", session.blender, spec.written_by.series())));
    lines.push(("Device", device(spec)));
    let settings = overrides(&session.settings);
    if !settings.is_empty() {
        lines.push(("Settings", settings.join(", ")));
    }
    lines.push(("Owner", format!("{}, project {}", job.owner, job.project)));
    lines.push(("Made", moment(job.created_ms)));
    if let Some(at_ms) = job.kept.archived_ms {
        lines.push(("Archived", moment(at_ms)));
    }
    let kept = [("files", job.kept.inputs), ("frames", job.kept.outputs), ("logs", job.kept.logs)];
    lines.push(("Kept", kept.map(|(what, kept)| format!("{what} {}", until(kept))).join(", ")));
    if let Some(mean) = job.mean_frame_s {
        lines.push(("A frame", measured(mean)));
    }
    if let Some(left) = job.left.filter(|_| !job.state.is_end()) {
        lines.push(("Left", format!("{}, {} busy", left_of(left), count(job.workers_busy, "worker"))));
    }
    for notice in &job.notices {
        lines.push(("Notice", notice.clone()));
    }
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let line =
        |(name, value): &(&str, String)| format!("{name:width$}  {}\n", crate::output::one_line(value));
    lines.iter().map(line).collect()
}

fn device(spec: &JobSpec) -> String {
    match (spec.any_gpu, spec.session.device) {
        (_, DeviceClass::Gpu) => "any GPU: the first worker that takes a task decides which".to_owned(),
        (true, device) => format!("{device}, chosen by the first worker that took a task"),
        (false, device) => device.to_string(),
    }
}

/// `priority 50, after 7, 8, not before 2026-12-24 18:00, on 3 workers at most`.
fn scheduling(scheduling: &JobScheduling) -> String {
    let mut parts = vec![format!("priority {}", scheduling.priority)];
    if !scheduling.after.is_empty() {
        let jobs: Vec<String> = scheduling.after.iter().map(ToString::to_string).collect();
        parts.push(format!("after {}", jobs.join(", ")));
    }
    parts.extend(scheduling.not_before_ms.map(|at_ms| format!("not before {}", moment(at_ms))));
    parts.extend(scheduling.max_workers.map(|most| format!("on {} at most", count(most.get(), "worker"))));
    parts.join(", ")
}

/// Returns the requirements of a worker besides its Blender.
fn requirements(requirements: &JobRequirements) -> Vec<String> {
    let mut parts = Vec::new();
    parts.extend(requirements.cores.map(|cores| count(cores.get(), "core")));
    parts.extend(requirements.memory.map(|bytes| format!("{} of memory", ByteSize(bytes))));
    match requirements.gpus {
        GpuUse::All => parts.push("all GPUs on one frame".to_owned()),
        gpus if gpus == GpuUse::default() => {}
        GpuUse::Count(gpus) => parts.push(format!("{gpus} GPUs for each frame")),
    }
    parts.extend(requirements.gpu_memory.map(|bytes| format!("GPUs with {}", ByteSize(bytes))));
    parts.extend(requirements.whole.then(|| "the machine for itself".to_owned()));
    parts.extend(requirements.tags.iter().map(|tag| format!("the tag {tag}")));
    parts.extend(requirements.pool.iter().map(|pool| format!("the pool {pool}")));
    parts.extend(requirements.limits.iter().map(|(name, held)| format!("{held} of the limit {name}")));
    parts
}

/// Says how long something is kept.
fn until(kept: RetentionState) -> String {
    match kept {
        RetentionState::WhileOpen => "while the job is open".to_owned(),
        RetentionState::UntilFetched => "until they are fetched".to_owned(),
        RetentionState::Until { at_ms } => format!("until {}", moment(at_ms)),
        RetentionState::UntilDeleted => "until the job is deleted".to_owned(),
        RetentionState::Gone { at_ms } => format!("gone since {}", moment(at_ms)),
    }
}

/// Returns the settings that override those of the file.
fn overrides(settings: &RenderSettings) -> Vec<String> {
    let size = settings.resolution.map(|size| match size {
        Resolution::Percent(percent) => format!("{percent}%"),
        Resolution::Pixels { width, height } => format!("{width}x{height}"),
    });
    let texts = [
        ("scene", settings.scene.clone()),
        ("camera", settings.camera.clone()),
        ("view layer", settings.view_layer.clone()),
        ("engine", settings.engine.clone()),
        ("samples", settings.samples.map(|n| n.to_string())),
        ("resolution", size),
        ("format", settings.format.map(|format| format.to_string())),
        ("depth", settings.depth.map(|depth| format!("{depth} bit"))),
        ("threads", settings.threads.map(|n| n.to_string())),
    ];
    let texts = texts.into_iter().filter_map(|(name, value)| value.map(|value| format!("{name} {value}")));
    texts.chain(settings.properties.iter().map(|(path, value)| format!("{path}={value}"))).collect()
}

/// Returns the attempt whose log is printed by default: of a frame the newest; of a job the newest that failed, or else
/// the newest that runs, that delivered, or that exists.
async fn default_attempt(client: &Client, id: JobId, frame: Option<i32>) -> Outcome<Option<AttemptId>> {
    let by_state = [AttemptState::Failed, AttemptState::Running, AttemptState::Committed];
    let states = by_state.into_iter().filter(|_| frame.is_none()).map(Some).chain([None]);
    for state in states {
        let which = AttemptFilter { frame, state, limit: Some(1), ..AttemptFilter::default() };
        let page = client.attempts(id, &which).await?;
        if let Some(newest) = page.attempts.first() {
            return Ok(Some(newest.id));
        }
    }
    Ok(None)
}

async fn logs(context: &Context, client: &Client, args: &LogsArgs) -> Outcome<Exit> {
    let id = args.job.id;
    let attempt = match args.attempt {
        Some(attempt) => attempt,
        None => {
            let none = || {
                let what = args.frame.map_or_else(String::new, |frame| format!(" at frame {frame}"));
                CommandError::bad_input(format!(
                    "job {id} has no attempt{what} yet; `kiln jobs show {id}` says what it waits for"
                ))
            };
            default_attempt(client, id, args.frame).await?.ok_or_else(none)?
        }
    };
    let log = client.attempt_log(id, attempt).await?;
    if context.output.reader() == crate::output::OutputMode::Json {
        context.output.result(&json!({ "job": id, "attempt": attempt, "log": log }), String::new);
    } else {
        context.output.raw(&log);
    }
    Ok(Exit::Done)
}
