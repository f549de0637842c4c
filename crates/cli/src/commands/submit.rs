//! `kiln submit`, and the way from arguments to a submission, which `kiln render` shares.

use std::path::PathBuf;

use kiln_api::JobView;
use kiln_blend::SharedRoot;
use kiln_client::{
    Extras, HashCache, Request, Transfer,
    submission::{
        EventSender, JobHome, JobOptions, RenderPlace, Submission, SubmissionEvent, SubmissionOptions,
        SubmittedJob, VariantChoices, VariantEvent, VariantJob, VariantResult, VariantRun,
    },
};
use kiln_types::{
    ExternalFiles, JobRequirements, JobScheduling, Policy, RenderSettings, ScriptPolicy, Simulations,
    TimeSpan,
};

use super::{
    Context,
    attach::{follow_runs, tell_results},
};
use crate::{
    args::{At, Counted, ExtrasArgs, JobArgs, Jobs, SubmitArgs},
    exit::{CommandError, Exit, Outcome},
    farm,
    newer::{choose_on_farm, of_farm},
    output::{
        Output, OutputMode,
        text::{self, count},
    },
    screen::Screen,
    settings::Settings,
    signals::Signals,
    size::ByteSize,
};

/// Returns the extra files that the command line names; without a colour configuration, that of the variable OCIO.
pub fn extras(output: Output, args: &ExtrasArgs) -> Extras {
    let of_system = || {
        let path = std::env::var_os("OCIO").map(PathBuf::from).filter(|path| !path.as_os_str().is_empty())?;
        let shown = text::path(&path);
        if path.is_file() {
            output.note(&format!(
                "the colour configuration is {shown}, as the variable OCIO says; it is sent with the .blend"
            ));
            return Some(path);
        }
        output.note(&format!(
            "the variable OCIO names {shown}, which is not a file: Blender's own colour configuration is used"
        ));
        None
    };
    Extras { ocio: args.ocio.clone().or_else(of_system), addons: args.addon.clone() }
}

fn request(output: Output, args: &JobArgs, settings: &Settings, transfer: Transfer) -> Request {
    let (scene, policy) = (&args.settings, &args.policy);
    Request {
        frames: args.frames.frames.clone(),
        step: args.frames.step,
        blender: scene.blender_version,
        device: settings.device.value,
        settings: RenderSettings {
            engine: scene.engine.clone(),
            samples: scene.samples,
            resolution: scene.resolution,
            format: scene.format,
            depth: scene.depth,
            threads: scene.threads,
            properties: scene.set.iter().cloned().collect(),
            ..RenderSettings::default()
        },
        policy: Policy {
            scripts: match (policy.trust, policy.no_scripts) {
                (true, _) => ScriptPolicy::Trust,
                (_, true) => ScriptPolicy::Block,
                _ => ScriptPolicy::Stop,
            },
            external_files: if policy.allow_missing {
                ExternalFiles::MayBeMissing
            } else {
                ExternalFiles::Required
            },
            simulations: match (policy.no_bake, policy.only_baked) {
                (true, _) => Simulations::AsTheyAre,
                (_, true) => Simulations::MustBeBaked,
                _ => Simulations::Bake,
            },
        },
        shared: settings
            .shared
            .value
            .iter()
            .map(|(name, root)| SharedRoot { name: name.clone(), root: root.clone() })
            .collect(),
        hash_shared: policy.shared_hash,
        extras: extras(output, &scene.extras),
        transfer,
        hashes: if settings.hash_cache.value {
            HashCache::new(settings.cache.join("hashes"))
        } else {
            HashCache::off()
        },
    }
}

fn job_options(job: &JobArgs, settings: &Settings) -> JobOptions {
    let args = &job.scheduling;
    let seconds = |span: TimeSpan| u32::try_from(span.as_secs()).unwrap_or(u32::MAX);
    let limits = args.limit.iter().map(|Counted { name, count }| (name.clone(), *count));
    JobOptions {
        user: settings.user.value.clone(),
        project: settings.project.value.clone(),
        order: job.frames.order,
        held: args.hold,
        hold_after: args.hold_after,
        refuse_black: job.policy.refuse_black,
        frame_time_limit_s: job.policy.frame_time_limit.map(seconds),
        hang_s: job.policy.hang.map(seconds),
        scheduling: JobScheduling {
            priority: args.priority.unwrap_or_default(),
            after: args.after.as_ref().map(|Jobs(jobs)| jobs.clone()).unwrap_or_default(),
            not_before_ms: args.at.and_then(|At(at_ms)| at_ms),
            max_workers: args.max_workers,
        },
        requirements: JobRequirements {
            cores: args.cores,
            memory: args.memory.map(|ByteSize(bytes)| bytes),
            gpus: args.gpus.unwrap_or_default(),
            gpu_memory: args.gpu_memory.map(|ByteSize(bytes)| bytes),
            whole: args.whole,
            tags: args.tag.iter().cloned().collect(),
            pool: args.pool.clone(),
            limits: limits.collect(),
        },
    }
}

/// The program that waits for a submission. How files are uploaded depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubmissionWaiter {
    /// A command with the server inside it: it ends with its job.
    LocalFarm,
    /// A command that follows its job on a farm.
    Follower,
    Nobody,
}

/// Returns the submission that the arguments ask for.
pub fn submission(
    output: Output,
    args: &JobArgs,
    settings: &Settings,
    waits: SubmissionWaiter,
    events: EventSender,
) -> Submission {
    let transfer = if waits == SubmissionWaiter::LocalFarm { Transfer::Whole } else { Transfer::Chunks };
    let options = SubmissionOptions {
        choices: VariantChoices {
            files: args.frames.files.clone(),
            scenes: args.settings.scene.clone(),
            cameras: args.settings.camera.clone(),
            view_layers: args.settings.view_layer.clone(),
        },
        request: request(output, args, settings, transfer),
        out: args.frames.out.clone(),
        existing: args.frames.existing.unwrap_or_default(),
        job: job_options(args, settings),
        joins_running_job: waits != SubmissionWaiter::Nobody,
        data: (waits != SubmissionWaiter::LocalFarm).then(|| settings.data.value.clone()),
    };
    Submission::new(options, events)
}

pub async fn run(context: &Context, args: SubmitArgs) -> Outcome<Exit> {
    let settings = Settings::resolve(context.job_flags(&args.farm, &args.job).and(&args.shared))?;
    let output = context.output;
    let mut signals = Signals::new().map_err(|error| CommandError::failed(error.to_string()))?;
    let (events, mut screen) = Screen::new(output);
    let sending = async {
        let client = farm::need(&settings)?;
        let submission = submission(output, &args.job, &settings, SubmissionWaiter::Nobody, events);
        let (checked, read) = screen.during(async { tokio::join!(client.check(), submission.read()) }).await;
        let mut read = read?;
        checked?;
        if args.job.settings.blender_version.is_none() {
            choose_on_farm(output, &settings, &mut read, &of_farm(&client).await?).await?;
        }
        let planned = screen.during(read.plan(&RenderPlace::Farm(&client))).await?;
        if planned.blender().is_none() {
            return Ok(Err(planned.nothing_left()));
        }
        let runs = screen.during(planned.submit(&client)).await?;
        Ok::<_, CommandError>(Ok(runs))
    };
    let sent = tokio::select! {
        sent = sending => sent?,
        () = signals.next() => return Ok(Exit::Interrupted),
    };
    let runs = match sent {
        Ok(runs) => runs,
        Err(results) => return tell_results(output, results),
    };
    if !args.wait {
        leave(output, runs);
        return Ok(Exit::Done);
    }
    name_jobs(output, &runs);
    let results = follow_runs(&mut screen, runs, JobHome::Farm, &mut signals).await?;
    tell_results(output, results)
}

/// Prints the numbers of the jobs that are about to be followed.
pub fn name_jobs(output: Output, runs: &[VariantRun]) {
    let jobs: Vec<&SubmittedJob> = runs.iter().filter_map(VariantRun::job).collect();
    let Some(first) = jobs.first() else { return };
    let word = if jobs.len() == 1 { "job" } else { "jobs" };
    let ids: Vec<String> = jobs.iter().map(|job| job.job().id.to_string()).collect();
    output.note(&format!("{word} {} at {}", ids.join(", "), first.client().url()));
}

/// Leaves the jobs to the farm, and prints their numbers.
fn leave(output: Output, runs: Vec<VariantRun>) {
    let is_one = runs.len() == 1;
    let mut variants = Vec::new();
    for run in runs {
        match run {
            VariantRun::Ended(VariantResult { variant, .. }) => {
                let variant = variant.unwrap_or_default();
                output.note(&format!("{variant}: nothing is left to render"));
                variants.push(VariantJob { variant, job: None });
            }
            VariantRun::Job(job) => {
                let variant = job.variant().cloned().unwrap_or_default();
                let job = job.leave();
                variants.push(VariantJob { variant, job: Some(job.id) });
                print_job(output, &job);
            }
        }
    }
    if !is_one {
        let event = SubmissionEvent::VariantsSubmitted { variants };
        output.line(&VariantEvent { event, variant: None });
    }
}

/// Prints a job that was submitted. Programs read it from its event.
fn print_job(output: Output, job: &JobView) {
    let id = job.id;
    match output.reader() {
        OutputMode::Json => {}
        OutputMode::Quiet => output.raw(&format!("{id}\n")),
        OutputMode::Human => {
            if let Some(waits) = &job.waits_for {
                output.note(&waits.to_string());
            }
            output.raw(&format!(
                "Job {id}: {} of {}. `kiln jobs wait {id}` attaches to it, `kiln jobs fetch {id}` fetches its frames.\n",
                count(job.tasks.total, "frame"),
                job.name
            ));
        }
    }
}
