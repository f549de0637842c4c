//! `kiln render`: here, in a farm inside this command; or in a farm, with this machine.

use std::{collections::BTreeSet, path::Path};

use kiln_client::{
    Client,
    submission::{
        DevicesFuture, EventSender, FollowEnd, JobHome, LocalDevice, LocalDevices, PlannedSubmission,
        RenderPlace, SubmissionResult, SubmittedJob,
    },
};
use kiln_host::{BlenderInstall, can_install};
use kiln_types::{BlenderSeries, BlenderVersion, DeviceChoice, WorkerState};
use kiln_worker::{RunningWorker, Worker, WorkerOptions};

use super::{
    Context,
    attach::{tell_finished, tell_nothing_left},
    blender::discover,
    submit::{Waits, submission},
    worker::apply,
};
use crate::{
    args::RenderArgs,
    exit::{Exit, Fault, Outcome},
    farm,
    follow::follow,
    inside::Inside,
    newer::{Where, choose, listed, of_farm},
    output::Output,
    screen::Screen,
    settings::Settings,
    signals::Signals,
};

pub async fn run(context: &Context, args: RenderArgs) -> Outcome<Exit> {
    let settings =
        Settings::resolve(context.job_flags(&args.farm, &args.job).and(&args.here).and(&args.shared))?;
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
    let (events, mut screen) = Screen::new(output);
    let begun = tokio::select! {
        begun = begin_here(&mut screen, events, settings, args) => begun?,
        // Everything that was begun is dropped, and so undone.
        () = signals.next() => return Ok(Exit::Interrupted),
    };
    let (inside, job) = match begun {
        Begun::NothingLeft(finished) => return Ok(tell_nothing_left(output, *finished)),
        Begun::Job(begun) => *begun,
    };
    let followed = match follow(&mut screen, job, JobHome::Caller, signals).await {
        Ok(followed) => followed,
        Err(fault) => {
            inside.end().await;
            return Err(fault);
        }
    };
    if followed.end() == FollowEnd::Stopped {
        // The Blenders first: a person who pressed Ctrl-C wants the machine back.
        inside.end().await;
        let finished = screen.during(followed.finish()).await?;
        return Ok(tell_finished(output, finished));
    }
    let finished = screen.during(followed.finish()).await;
    let told = finished.map(|finished| tell_finished(output, finished));
    inside.end().await;
    Ok(told?)
}

enum Begun {
    NothingLeft(Box<SubmissionResult>),
    Job(Box<(Inside, SubmittedJob)>),
}

/// The farm inside starts, and its Blender with it, while the file is read and hashed.
async fn begin_here(
    screen: &mut Screen,
    events: EventSender,
    settings: &Settings,
    args: &RenderArgs,
) -> Outcome<Begun> {
    let output = screen.output;
    let blenders = discover(settings).await?;
    let mut series = series(args).await?;
    if args.job.settings.blender_version.is_none() {
        let there = blenders.iter().map(|install| install.version.series()).collect();
        series = choose(output, settings, (&args.job.frames.file, series), &there, Where::Here).await?;
    }
    let mut job = args.job.clone();
    job.settings.blender_version = Some(series);
    let blender = InstalledBlender(check_blender(&args.job.frames.file, series, &blenders)?);
    let place = RenderPlace::Here(&blender);
    let choice = settings.device.value;
    if !matches!(choice, DeviceChoice::Auto | DeviceChoice::Gpu) {
        place.check(choice.resolve(false)).await?;
    }
    let submission = submission(output, &job, settings, Waits::Inside, events);
    let reading = async { submission.read().await?.plan(&place).await };
    let starting = Inside::start(settings, series);
    let (inside, planned) = screen.during(async { tokio::join!(starting, reading) }).await;
    match (planned, inside) {
        (Ok(planned), Ok(inside)) => submit_here(screen, inside, planned).await,
        // What is wrong with the file matters more than what is wrong with the machine.
        (Err(error), Ok(inside)) => {
            inside.end().await;
            Err(error.into())
        }
        (Err(error), Err(_)) => Err(error.into()),
        (Ok(_), Err(fault)) => Err(fault),
    }
}

async fn submit_here(screen: &mut Screen, inside: Inside, planned: PlannedSubmission) -> Outcome<Begun> {
    if planned.left().is_none() {
        inside.end().await;
        return Ok(Begun::NothingLeft(Box::new(planned.nothing_left())));
    }
    match screen.during(planned.submit(&inside.client)).await {
        Ok(job) => Ok(Begun::Job(Box::new((inside, job)))),
        Err(error) => {
            inside.end().await;
            Err(error.into())
        }
    }
}

/// A Blender of this machine, which knows what devices it can use.
struct InstalledBlender<'a>(&'a BlenderInstall);

impl LocalDevices for InstalledBlender<'_> {
    fn blender(&self) -> BlenderVersion {
        self.0.version
    }

    fn devices(&self) -> DevicesFuture<'_> {
        Box::pin(async {
            let found = kiln_host::probe(self.0).await.map_err(|error| error.to_string())?;
            let devices = found.devices.into_iter();
            Ok(devices.map(|one| LocalDevice { backend: one.backend, name: one.name }).collect())
        })
    }
}

/// The series of Blender that will render, told by the file's first bytes.
async fn series(args: &RenderArgs) -> Outcome<BlenderSeries> {
    let file = args.job.frames.file.clone();
    let peek = tokio::task::spawn_blocking(move || kiln_blend::peek(&file))
        .await
        .map_err(|error| Fault::failed(format!("reading the .blend broke off ({error})")))?
        .map_err(|error| Fault::bad_input(error.to_string()))?;
    Ok(args.job.settings.blender_version.unwrap_or(peek.written_by.series()))
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
    let (events, mut screen) = Screen::new(output);
    let beginning = async {
        let submission = submission(output, &args.job, settings, Waits::Beside, events);
        let (checked, read) = screen.during(async { tokio::join!(client.check(), submission.read()) }).await;
        let mut read = read?;
        checked?;
        if args.job.settings.blender_version.is_none() {
            let mut there = of_farm(&client).await?;
            // The search costs time, and is for a series that the farm lacks.
            if !args.no_local && !there.contains(&read.blender()) {
                there.extend(discover(settings).await?.iter().map(|install| install.version.series()));
            }
            let asked = (&*args.job.frames.file, read.blender());
            read.render_with(choose(output, settings, asked, &there, Where::Farm).await?);
        }
        let planned = screen.during(read.plan(&RenderPlace::Farm(&client))).await?;
        if planned.left().is_none() {
            return Ok(Err(planned.nothing_left()));
        }
        let series = planned.blender();
        let worker = if args.no_local { None } else { join(output, settings, &client, series).await };
        let job = screen.during(planned.submit(&client)).await?;
        Ok::<_, Fault>(Ok((worker, job)))
    };
    let begun = tokio::select! {
        begun = beginning => begun?,
        () = signals.next() => return Ok(Exit::Interrupted),
    };
    let (worker, job) = match begun {
        Ok(begun) => begun,
        Err(finished) => return Ok(tell_nothing_left(output, finished)),
    };
    output.note(&format!("job {} at {}", job.job().id, client.url()));
    let followed = follow(&mut screen, job, JobHome::Farm, signals).await;
    if let Some(worker) = worker {
        // It may hold frames of other jobs by now: they go back at once, not after a lease.
        tokio::select! {
            _ = worker.drain() => {}
            () = signals.next() => worker.stop_hard().await,
        }
    }
    let finished = screen.during(followed?.finish()).await?;
    Ok(tell_finished(output, finished))
}

/// Lets this machine render too. Where it cannot, the farm does it alone, and that is said.
async fn join(
    output: Output,
    settings: &Settings,
    client: &Client,
    series: BlenderSeries,
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
    options.prestart = Some(series);
    match Worker::start(options).await {
        Ok(worker) => Some(worker),
        Err(error) => {
            output.warning(&format!("this machine does not render along: {error}"));
            None
        }
    }
}
