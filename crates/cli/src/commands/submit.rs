//! `kiln submit`, and what `kiln render` shares with it: from arguments to a job.

use std::{path::PathBuf, sync::Arc};

use kiln_api::{JobView, SubmitJob};
use kiln_blend::SharedRoot;
use kiln_client::{Client, Extras, HashCache, PrepareError, Prepared, Request, Sent, ToRender, Transfer};
use kiln_types::{
    ExternalFiles, JobStanding, Needs, Owner, Policy, Project, RenderSettings, ScriptPolicy, Simulations,
};
use serde_json::json;

use super::{
    Context,
    attach::Ending,
    device::Place,
    earlier::{Left, Others},
    ground::{Ground, ground},
};
use crate::{
    args::{At, Counted, ExtrasArgs, JobArgs, Jobs, OrderArgs, SubmitArgs},
    exit::{Exit, Fault, Outcome},
    farm,
    follow::{Whose, follow},
    marker::Marker,
    newer::{Where, choose, of_farm},
    output::{
        Output, Reader,
        blend::tell_missing,
        one_line,
        text::{self, count},
    },
    settings::Settings,
    signals::Signals,
    size::ByteSize,
};

/// Bytes from which on an upload tells how far it is.
const TOLD_FROM: u64 = 64 << 20;

impl From<PrepareError> for Fault {
    fn from(error: PrepareError) -> Self {
        match error {
            PrepareError::Client(error) => error.into(),
            other => Self::bad_input(other.to_string()),
        }
    }
}

/// What goes along because it is named, on the command line or by the variable that every program with OCIO reads.
pub fn extras(output: Output, args: &ExtrasArgs) -> Extras {
    let of_system = || {
        let path = std::env::var_os("OCIO").map(PathBuf::from).filter(|path| !path.as_os_str().is_empty())?;
        let shown = text::path(&path);
        if path.is_file() {
            output.note(&format!("colours by {shown}, which the variable OCIO names; it goes along"));
            return Some(path);
        }
        output.note(&format!("the variable OCIO names {shown}, which is no file: colours are Blender's own"));
        None
    };
    Extras { ocio: args.ocio.clone().or_else(of_system), addons: args.addon.clone() }
}

/// What the arguments ask for.
fn request(output: Output, args: &JobArgs, settings: &Settings, transfer: Transfer) -> Request {
    Request {
        frames: args.frames.clone(),
        step: args.step,
        blender: args.blender_version,
        device: settings.device.value,
        settings: RenderSettings {
            scene: args.scene.clone(),
            camera: args.camera.clone(),
            view_layer: args.view_layer.clone(),
            engine: args.engine.clone(),
            samples: args.samples,
            resolution: args.resolution,
            format: args.format,
            depth: args.depth,
            threads: args.threads,
        },
        policy: Policy {
            scripts: match (args.trust, args.no_scripts) {
                (true, _) => ScriptPolicy::Trust,
                (_, true) => ScriptPolicy::Block,
                _ => ScriptPolicy::Stop,
            },
            external_files: if args.allow_missing {
                ExternalFiles::MayBeMissing
            } else {
                ExternalFiles::Required
            },
            simulations: match (args.no_bake, args.only_baked) {
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
        hash_shared: args.shared_hash,
        extras: extras(output, &args.extras),
        transfer,
        hashes: if settings.hash_cache.value {
            HashCache::new(settings.cache.join("hashes"))
        } else {
            HashCache::off()
        },
    }
}

/// Reads and hashes the .blend and all it needs, off the async threads.
pub async fn prepare(
    output: Output,
    args: &JobArgs,
    settings: &Settings,
    transfer: Transfer,
) -> Outcome<Prepared> {
    let (file, request) = (args.file.clone(), request(output, args, settings, transfer));
    let prepared = tokio::task::spawn_blocking(move || Prepared::new(&file, &request));
    let prepared =
        prepared.await.map_err(|error| Fault::failed(format!("reading the .blend broke off ({error})")))?;
    if let Err(PrepareError::Missing(files)) = &prepared
        && files.len() > PrepareError::NAMED
    {
        tell_missing(output, files);
    }
    let prepared = prepared?;
    for notice in &prepared.notices {
        output.note(&one_line(notice));
    }
    let unbaked = prepared.unbaked();
    if args.only_baked && !unbaked.is_empty() {
        return Err(Fault::bad_input(format!(
            "{} not baked; bake in Blender, leave --only-baked out and Kiln bakes first, or choose --no-bake: then \
             nothing moves",
            named(&unbaked)
        )));
    }
    Ok(prepared)
}

/// `rigid body Cube and 3 more simulations are`.
fn named(simulations: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = simulations[..simulations.len().min(SHOWN)].join(", ");
    match simulations.len().saturating_sub(SHOWN) {
        0 if simulations.len() == 1 => format!("{shown} is"),
        0 => format!("{shown} are"),
        more => format!("{shown} and {} are", count(more as u64, "more simulation")),
    }
}

/// What becomes of simulations that nobody has baked.
fn tell_bake(output: Output, prepared: &Prepared) {
    let unbaked = prepared.unbaked();
    if unbaked.is_empty() {
        return;
    }
    let named = named(&unbaked);
    match prepared.session.policy.simulations {
        Simulations::Bake => output.note(&format!("{named} not baked: that is done first")),
        Simulations::AsTheyAre => output.warning(&format!("{named} not baked, and will stand still")),
        // Refused before.
        Simulations::MustBeBaked => {}
    }
}

/// The job where it should stand, and with what it needs.
fn ordered(job: SubmitJob, args: &OrderArgs, settings: &Settings) -> SubmitJob {
    let limits = args.limit.iter().map(|Counted { name, count }| (name.clone(), *count));
    SubmitJob {
        user: settings.user.value.clone().map(Owner),
        project: settings.project.value.clone().map(Project),
        held: args.hold,
        hang_s: args.hang.map(|hang| u32::try_from(hang.as_secs()).unwrap_or(u32::MAX)),
        standing: JobStanding {
            priority: args.priority.unwrap_or_default(),
            after: args.after.as_ref().map(|Jobs(jobs)| jobs.clone()).unwrap_or_default(),
            not_before_ms: args.at.and_then(|At(at_ms)| at_ms),
            max_workers: args.max_workers,
        },
        needs: Needs {
            cores: args.cores,
            memory: args.memory.map(|ByteSize(bytes)| bytes),
            gpus: args.gpus.unwrap_or_default(),
            gpu_memory: args.gpu_memory.map(|ByteSize(bytes)| bytes),
            whole: args.whole,
            tags: args.tag.iter().cloned().collect(),
            pool: args.pool.clone(),
            limits: limits.collect(),
        },
        ..job
    }
}

/// Sends the files and makes the job, or goes on with one that renders the same already.
pub async fn submit(
    output: Output,
    settings: &Settings,
    client: &Client,
    prepared: &Prepared,
    ground: &Ground,
    args: &JobArgs,
    rest: Others,
) -> Outcome<JobView> {
    let frames = ground.to_render.frames.clone().unwrap_or_else(|| prepared.frames.clone());
    let limit = args.frame_time_limit.map(|limit| u32::try_from(limit.as_secs()).unwrap_or(u32::MAX));
    let job = prepared.job(frames.clone(), args.frame_order, limit);
    let mut job = SubmitJob { refuse_black: args.refuse_black, ..ordered(job, &args.order, settings) };
    // Who submits with other wishes wants another job.
    let running = ground.running.as_ref();
    if let Some(running) = running.filter(|one| rest == Others::Join || one.is_asked_as(&job)) {
        match running.take(output, client, frames, rest).await? {
            Left::Nothing(job) => return Ok(*job),
            Left::Frames(frames) => job.frames = Some(frames),
        }
    }
    tell_bake(output, prepared);
    let mut told = 0;
    let sent = |Sent { done, total, there }: Sent| {
        // A line a tenth, where there is much to send.
        if total > TOLD_FROM && (done == total || done >= told + total / 10) {
            told = done;
            let there =
                if there > 0 { format!("; {} were there already", ByteSize(there)) } else { String::new() };
            output.note(&format!("sent {} of {}{there}", ByteSize(done), ByteSize(total)));
        }
    };
    Ok(client.submit_prepared(prepared, &job, sent).await?)
}

/// Remembers where the frames of a farm's job go, for `kiln jobs wait` and `fetch`.
pub fn remember(
    output: Output,
    settings: &Settings,
    client: &Client,
    job: &JobView,
    prepared: &Prepared,
    ground: &Ground,
) -> Marker {
    let marker = Marker {
        server: client.url().to_owned(),
        job: job.id,
        created_ms: job.created_ms,
        out: ground.folder.path().to_owned(),
        blend: prepared.session.own_stem().to_owned(),
        existing: ground.existing,
    };
    if let Err(error) = marker.save(&settings.data.value) {
        let data = settings.data.value.display();
        output.warning(&format!(
            "where the frames go could not be noted in {data} ({error}); `kiln jobs fetch` will need --out"
        ));
    }
    marker
}

pub async fn run(context: &Context, args: SubmitArgs) -> Outcome<Exit> {
    let mut flags = context.flags(&args.farm);
    flags.of_job(&args.job);
    let settings = Settings::resolve(flags)?;
    let output = context.output;
    let mut signals = Signals::new().map_err(|error| Fault::failed(error.to_string()))?;
    let sending = async {
        let client = farm::need(&settings)?;
        let (checked, prepared) =
            tokio::join!(client.check(), prepare(output, &args.job, &settings, Transfer::Chunks));
        let mut prepared = prepared?;
        checked?;
        if args.job.blender_version.is_none() {
            let (there, asked) = (of_farm(&client).await?, (&*args.job.file, prepared.session.blender));
            prepared.session.blender = choose(output, &settings, asked, &there, Where::Farm).await?;
        }
        let farm = Place::Farm(&client);
        let ground = ground(output, &settings, &args.job, &mut prepared, &args.landing, &farm).await?;
        ground.tell(output, &prepared);
        if ground.to_render.frames.is_none() {
            return Ok((client, prepared, ground, None));
        }
        let job = submit(output, &settings, &client, &prepared, &ground, &args.job, Others::Apart).await?;
        Ok::<_, Fault>((client, prepared, ground, Some(job)))
    };
    let (client, prepared, mut ground, job) = tokio::select! {
        sent = sending => sent?,
        () = signals.next() => return Ok(Exit::Interrupted),
    };
    let Some(job) = job else { return Ok(ground.nothing_left(context)) };
    let marker = remember(output, &settings, &client, &job, &prepared, &ground);
    if !args.wait {
        // The folder is made now: the frames are to land there later.
        if let Some(folder) = Arc::get_mut(&mut ground.folder) {
            folder.keep();
        }
        told(output, &job, &ground);
        return Ok(Exit::Done);
    }
    output.note(&format!("job {} at {}", job.id, client.url()));
    let out = ground.folder.path().to_owned();
    let (before, notices) = (ground.to_render.clone(), ground.notices.clone());
    let fetcher = ground.fetcher(&client, &job);
    let stay = follow(output, &client, job, Some(fetcher), Whose::Farm, &mut signals)
        .await?
        .only(before.frames.as_ref());
    if stay.exit() == Exit::Done && !stay.behind {
        marker.forget(&settings.data.value);
    }
    Ending { stay, out: Some(&out), before: Some(&before), notices: &notices }.tell(context, &client).await
}

fn told(output: Output, job: &JobView, ground: &Ground) {
    let id = job.id;
    let ToRender { kept, replaced, older, .. } = &ground.to_render;
    if let (Some(waits), Reader::Human) = (&job.waits_for, output.reader()) {
        output.note(&waits.to_string());
    }
    let is_new = ground.running.as_ref().is_none_or(|running| running.id() != id);
    let value = json!({
        "job": job, "new": is_new, "kept": kept, "replaced": replaced, "older": older, "notices": ground.notices,
    });
    output.result(&value, || {
        if output.reader() == Reader::Quiet {
            return id.to_string();
        }
        format!(
            "Job {id}: {} of {}. `kiln jobs wait {id}` stays with it, `kiln jobs fetch {id}` brings its frames.",
            count(job.tasks.total, "frame"),
            job.name
        )
    });
}
