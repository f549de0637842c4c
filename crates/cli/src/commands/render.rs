//! `kiln render`: here, in a farm inside this command; or in a farm, with this machine.

use std::{collections::BTreeSet, path::Path};

use kiln_client::{Client, Prepared, Transfer};
use kiln_host::{BlenderInstall, can_install};
use kiln_types::{BlenderSeries, DeviceChoice, WorkerState};
use kiln_worker::{RunningWorker, Worker, WorkerOptions};

use super::{
    Context,
    attach::Ending,
    blender::discover,
    device::Place,
    earlier::Others,
    ground::{Ground, ground},
    submit::{prepare, remember, submit},
    worker::apply,
};
use crate::{
    args::{JobArgs, RenderArgs},
    exit::{Exit, Fault, Outcome},
    farm,
    follow::{End, Whose, follow},
    inside::Inside,
    newer::{Where, choose, listed, of_farm},
    output::Output,
    settings::Settings,
    signals::Signals,
};

pub async fn run(context: &Context, args: RenderArgs) -> Outcome<Exit> {
    let settings = Settings::resolve(context.job_flags(&args.farm, &args.job).and(&args.here))?;
    let mut signals = Signals::new().map_err(|error| Fault::failed(error.to_string()))?;
    let farm = if args.local { None } else { farm::find(&settings)? };
    match farm {
        Some(client) => on_farm(context, &settings, &args, client, &mut signals).await,
        None if args.no_local => Err(Fault::no_server(
            "--no-local needs a farm, and none is known here; name one with --server, or leave --no-local out",
        )),
        None => here(context, &settings, &args, &mut signals).await,
    }
}

async fn here(
    context: &Context,
    settings: &Settings,
    args: &RenderArgs,
    signals: &mut Signals,
) -> Outcome<Exit> {
    let output = context.output;
    let begun = tokio::select! {
        begun = begin_here(output, settings, args) => begun?,
        // Everything that was begun is dropped, and so undone.
        () = signals.next() => return Ok(Exit::Interrupted),
    };
    let (inside, ground, job) = match begun {
        Begun::NothingLeft(ground) => return Ok(ground.nothing_left(context)),
        Begun::Job(begun) => *begun,
    };
    let client = inside.client.clone();
    let out = ground.folder.path().to_owned();
    let (before, notices) = (ground.to_render.clone(), ground.notices.clone());
    let fetcher = ground.fetcher(&client, &job);
    let stay = follow(output, &client, job, Some(fetcher), Whose::Ours, signals).await;
    let told = match stay {
        Ok(stay) if stay.end == End::Stopped => {
            // The Blenders first: whoever pressed Ctrl-C wants the machine back.
            inside.end().await;
            return Ending { stay, out: Some(&out), before: Some(&before), notices: &notices }
                .tell(context, &client)
                .await;
        }
        Ok(stay) => {
            Ending { stay, out: Some(&out), before: Some(&before), notices: &notices }
                .tell(context, &client)
                .await
        }
        Err(fault) => Err(fault),
    };
    inside.end().await;
    told
}

enum Begun {
    NothingLeft(Box<Ground>),
    Job(Box<(Inside, Ground, kiln_api::JobView)>),
}

/// The farm inside starts, and its Blender with it, while the file is read and hashed.
async fn begin_here(output: Output, settings: &Settings, args: &RenderArgs) -> Outcome<Begun> {
    let blenders = discover(settings).await?;
    let mut series = series(args).await?;
    if args.job.blender_version.is_none() {
        let there = blenders.iter().map(|install| install.version.series()).collect();
        series = choose(output, settings, (&args.job.file, series), &there, Where::Here).await?;
    }
    let job = JobArgs { blender_version: Some(series), ..args.job.clone() };
    let blender = check_blender(&args.job.file, series, &blenders)?;
    let place = Place::Here(blender);
    let choice = settings.device.value;
    if !matches!(choice, DeviceChoice::Auto | DeviceChoice::Gpu) {
        place.check(choice.resolve(false)).await?;
    }
    let reading = async {
        let mut prepared = prepare(output, &job, settings, Transfer::Whole).await?;
        let ground = ground(output, settings, &args.job, &mut prepared, &args.landing, &place).await?;
        Ok::<(Prepared, Ground), Fault>((prepared, ground))
    };
    let starting = Inside::start(settings, series);
    let (inside, read) = tokio::join!(starting, reading);
    match (read, inside) {
        (Ok((prepared, ground)), Ok(inside)) => {
            submit_here(output, settings, args, inside, &prepared, ground).await
        }
        // What is wrong with the file matters more than what is wrong with the machine.
        (Err(fault), Ok(inside)) => {
            inside.end().await;
            Err(fault)
        }
        (Err(fault), Err(_)) | (Ok(_), Err(fault)) => Err(fault),
    }
}

async fn submit_here(
    output: Output,
    settings: &Settings,
    args: &RenderArgs,
    inside: Inside,
    prepared: &Prepared,
    ground: Ground,
) -> Outcome<Begun> {
    ground.tell(output, prepared);
    if ground.to_render.frames.is_none() {
        inside.end().await;
        return Ok(Begun::NothingLeft(Box::new(ground)));
    }
    match submit(output, settings, &inside.client, prepared, &ground, &args.job, Others::Join).await {
        Ok(job) => Ok(Begun::Job(Box::new((inside, ground, job)))),
        Err(fault) => {
            inside.end().await;
            Err(fault)
        }
    }
}

/// The series of Blender that will render, told by the file's first bytes.
async fn series(args: &RenderArgs) -> Outcome<BlenderSeries> {
    let file = args.job.file.clone();
    let peek = tokio::task::spawn_blocking(move || kiln_blend::peek(&file))
        .await
        .map_err(|error| Fault::failed(format!("reading the .blend broke off ({error})")))?
        .map_err(|error| Fault::bad_input(error.to_string()))?;
    Ok(args.job.blender_version.unwrap_or(peek.written_by.series()))
}

/// A job that waits for a Blender would wait for ever here.
fn check_blender<'a>(
    file: &Path,
    series: BlenderSeries,
    blenders: &'a [BlenderInstall],
) -> Outcome<&'a BlenderInstall> {
    if let Some(install) = blenders.iter().find(|install| install.version.series() == series) {
        return Ok(install);
    }
    let there: BTreeSet<BlenderSeries> = blenders.iter().map(|install| install.version.series()).collect();
    let found = if there.is_empty() {
        "none is found here".to_owned()
    } else {
        format!("here is {}", listed(&there))
    };
    // What there is no Python module of, only a person can get.
    let get = match can_install(series) {
        true => format!("get it with `kiln blender install {series}`, or name one with --blender"),
        false => "name one with --blender".to_owned(),
    };
    Err(Fault::bad_input(format!("{} needs Blender {series}, and {found}; {get}", file.display())))
}

async fn on_farm(
    context: &Context,
    settings: &Settings,
    args: &RenderArgs,
    client: Client,
    signals: &mut Signals,
) -> Outcome<Exit> {
    let output = context.output;
    let beginning = async {
        let (checked, prepared) =
            tokio::join!(client.check(), prepare(output, &args.job, settings, Transfer::Chunks));
        let mut prepared = prepared?;
        checked?;
        if args.job.blender_version.is_none() {
            let mut there = of_farm(&client).await?;
            // The search costs time, and is for a series that the farm lacks.
            if !args.no_local && !there.contains(&prepared.session.blender) {
                there.extend(discover(settings).await?.iter().map(|install| install.version.series()));
            }
            let asked = (&*args.job.file, prepared.session.blender);
            prepared.session.blender = choose(output, settings, asked, &there, Where::Farm).await?;
        }
        let farm = Place::Farm(&client);
        let ground = ground(output, settings, &args.job, &mut prepared, &args.landing, &farm).await?;
        ground.tell(output, &prepared);
        if ground.to_render.frames.is_none() {
            return Ok((ground, None));
        }
        let worker = if args.no_local { None } else { join(output, settings, &client, &prepared).await };
        let job = submit(output, settings, &client, &prepared, &ground, &args.job, Others::Join).await?;
        Ok::<_, Fault>((ground, Some((prepared, worker, job))))
    };
    let (ground, begun) = tokio::select! {
        begun = beginning => begun?,
        () = signals.next() => return Ok(Exit::Interrupted),
    };
    let Some((prepared, worker, job)) = begun else { return Ok(ground.nothing_left(context)) };
    output.note(&format!("job {} at {}", job.id, client.url()));
    let marker = remember(output, settings, &client, &job, &prepared, &ground);
    let out = ground.folder.path().to_owned();
    let (before, notices) = (ground.to_render.clone(), ground.notices.clone());
    let fetcher = ground.fetcher(&client, &job);
    let stay = follow(output, &client, job, Some(fetcher), Whose::Farm, signals).await;
    if let Some(worker) = worker {
        // It may hold frames of other jobs by now: they go back at once, not after a lease.
        tokio::select! {
            _ = worker.drain() => {}
            () = signals.next() => worker.stop_hard().await,
        }
    }
    let stay = stay?.only(before.frames.as_ref());
    if stay.exit() == Exit::Done && !stay.behind {
        marker.forget(&settings.data.value);
    }
    Ending { stay, out: Some(&out), before: Some(&before), notices: &notices }.tell(context, &client).await
}

/// Lets this machine render too. Where it cannot, the farm does it alone, and that is said.
async fn join(
    output: Output,
    settings: &Settings,
    client: &Client,
    prepared: &Prepared,
) -> Option<RunningWorker> {
    // A worker that is at work here already has this machine's cores; a second one would only fight it. One that
    // rests leaves them to the person, and this is the person.
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let workers = client.workers().await.unwrap_or_default();
    let works = |state| !matches!(state, WorkerState::Offline | WorkerState::Resting);
    if workers.iter().any(|one| works(one.state) && one.machine.hostname == host) {
        return None;
    }
    let mut options = WorkerOptions::new(client.url(), client.key(), settings.data.value.join("worker"));
    apply(&mut options, settings);
    options.prestart = Some(prepared.session.blender);
    match Worker::start(options).await {
        Ok(worker) => Some(worker),
        Err(error) => {
            output.warning(&format!("this machine does not render along: {error}"));
            None
        }
    }
}
