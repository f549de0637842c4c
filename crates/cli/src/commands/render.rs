//! `kiln render`: in a farm inside this command, or on a farm together with this machine.

use std::{collections::BTreeSet, path::Path};

use kiln_client::{
    Client,
    submission::{
        DevicesFuture, EventSender, FollowEnd, JobHome, LocalDevice, LocalDevices, PlannedSubmission,
        RenderPlace, VariantResult, VariantRun,
    },
};
use kiln_host::{BlenderInstall, can_install};
use kiln_types::{BlenderSeries, BlenderVersion, DeviceChoice, WorkerState};
use kiln_worker::{RunningWorker, WorkerOptions};
use tokio::sync::OnceCell;

use super::{
    Context,
    attach::{follow_runs, tell_results},
    blender::discover,
    submit::{SubmissionWaiter, name_jobs, submission},
    worker::apply,
};
use crate::{
    args::RenderArgs,
    exit::{CommandError, Exit, Outcome},
    farm,
    local_farm::LocalFarm,
    newer::{RenderSite, choose, choose_on_farm, listed, of_farm},
    output::Output,
    screen::Screen,
    settings::Settings,
    signals::Signals,
};

pub async fn run(context: &Context, args: RenderArgs) -> Outcome<Exit> {
    let settings =
        Settings::resolve(context.job_flags(&args.farm, &args.job).and(&args.here).and(&args.shared))?;
    let mut signals = Signals::new().map_err(|error| CommandError::failed(error.to_string()))?;
    let farm = if args.local { None } else { farm::find(&settings)? };
    match farm {
        Some(client) => on_farm(context, &settings, &args, client, &mut signals).await,
        None if args.no_local => Err(CommandError::no_server(
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
        // Dropping what was begun undoes it.
        () = signals.next() => return Ok(Exit::Interrupted),
    };
    let (inside, runs) = match begun {
        LocalStart::NothingLeft(results) => return tell_results(output, results),
        LocalStart::Jobs(inside, runs) => (*inside, runs),
    };
    let results = match follow_runs(&mut screen, runs, JobHome::Caller, signals).await {
        Ok(results) => results,
        Err(fault) => {
            inside.end().await;
            return Err(fault);
        }
    };
    let is_stopped = |one: &VariantResult| one.result.as_ref().is_ok_and(|one| one.end == FollowEnd::Stopped);
    if results.iter().any(is_stopped) {
        // The Blenders first: a person who pressed Ctrl-C wants the machine back.
        inside.end().await;
        return tell_results(output, results);
    }
    let told = tell_results(output, results);
    inside.end().await;
    told
}

enum LocalStart {
    NothingLeft(Vec<VariantResult>),
    Jobs(Box<LocalFarm>, Vec<VariantRun>),
}

/// Starts the farm inside this command, and its Blender, while the file is read and hashed.
async fn begin_here(
    screen: &mut Screen,
    events: EventSender,
    settings: &Settings,
    args: &RenderArgs,
) -> Outcome<LocalStart> {
    let output = screen.output;
    let blenders = discover(settings).await?;
    let there = blenders.iter().map(|install| install.version.series()).collect();
    let mut chosen: Vec<(&Path, BlenderSeries)> = Vec::new();
    for file in &args.job.frames.files {
        let own = written_by(file).await?;
        let series = match args.job.settings.blender_version {
            Some(asked) => asked,
            None => choose(output, settings, (file, own), &there, RenderSite::Here).await?,
        };
        chosen.push((file, series));
    }
    let found: Vec<InstalledBlender<'_>> = chosen
        .iter()
        .map(|(file, series)| {
            let install = find_blender(file, *series, &blenders)?;
            Ok(InstalledBlender { install, devices: OnceCell::new() })
        })
        .collect::<Outcome<_>>()?;
    let found: Vec<&dyn LocalDevices> = found.iter().map(|one| one as &dyn LocalDevices).collect();
    let place = RenderPlace::Here(&found);
    let choice = settings.device.value;
    if !matches!(choice, DeviceChoice::Auto | DeviceChoice::Gpu) {
        for (_, series) in &chosen {
            place.check(*series, choice.resolve(false)).await?;
        }
    }
    let submission = submission(output, &args.job, settings, SubmissionWaiter::LocalFarm, events);
    let reading = async {
        let mut read = submission.read().await?;
        chosen.iter().for_each(|(file, series)| read.render_with(file, *series));
        read.plan(&place).await
    };
    let starting = LocalFarm::start(settings, chosen.first().map(|(_, series)| *series));
    let (inside, planned) = screen.during(async { tokio::join!(starting, reading) }).await;
    match (planned, inside) {
        (Ok(planned), Ok(inside)) => submit_here(screen, inside, planned).await,
        // A fault of the file matters more than a fault of the machine.
        (Err(error), Ok(inside)) => {
            inside.end().await;
            Err(error.into())
        }
        (Err(error), Err(_)) => Err(error.into()),
        (Ok(_), Err(fault)) => Err(fault),
    }
}

async fn submit_here(
    screen: &mut Screen,
    inside: LocalFarm,
    planned: PlannedSubmission,
) -> Outcome<LocalStart> {
    if planned.blender().is_none() {
        inside.end().await;
        return Ok(LocalStart::NothingLeft(planned.nothing_left()));
    }
    match screen.during(planned.submit(&inside.client)).await {
        Ok(runs) => Ok(LocalStart::Jobs(Box::new(inside), runs)),
        Err(error) => {
            inside.end().await;
            Err(error.into())
        }
    }
}

/// A Blender of this machine, and the devices that it can use.
struct InstalledBlender<'a> {
    install: &'a BlenderInstall,
    /// Asked of Blender once, although every variant needs them.
    devices: OnceCell<Vec<LocalDevice>>,
}

impl InstalledBlender<'_> {
    async fn probe(&self) -> Result<Vec<LocalDevice>, String> {
        let found = kiln_host::probe(self.install).await.map_err(|error| error.to_string())?;
        let devices = found.devices.into_iter();
        Ok(devices.map(|one| LocalDevice { backend: one.backend, name: one.name }).collect())
    }
}

impl LocalDevices for InstalledBlender<'_> {
    fn blender(&self) -> BlenderVersion {
        self.install.version
    }

    fn devices(&self) -> DevicesFuture<'_> {
        Box::pin(async { self.devices.get_or_try_init(|| self.probe()).await.cloned() })
    }
}

/// Reads the series of Blender that wrote a file from its first bytes.
async fn written_by(file: &Path) -> Outcome<BlenderSeries> {
    let file = file.to_owned();
    let peek = tokio::task::spawn_blocking(move || kiln_blend::peek(&file))
        .await
        .map_err(|error| {
            CommandError::failed(format!("reading the .blend ended early ({error}); try again"))
        })?
        .map_err(|error| CommandError::bad_input(error.to_string()))?;
    Ok(peek.written_by.series())
}

/// Returns the installed Blender of a series. Without it, a job here would wait without end.
fn find_blender<'a>(
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
        format!("this machine has {}", listed(&there))
    };
    // Only a person can install a series that has no Python module.
    let get = match can_install(series) {
        true => format!("install it with `kiln blender install {series}`, or name one with --blender"),
        false => "name one with --blender".to_owned(),
    };
    Err(CommandError::bad_input(format!("{} needs Blender {series}, and {found}; {get}", file.display())))
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
        let submission = submission(output, &args.job, settings, SubmissionWaiter::Follower, events);
        let (checked, read) = screen.during(async { tokio::join!(client.check(), submission.read()) }).await;
        let mut read = read?;
        checked?;
        if args.job.settings.blender_version.is_none() {
            let mut there = of_farm(&client).await?;
            // The search takes time, and is only needed for a series that the farm lacks.
            if !args.no_local && read.blenders().iter().any(|(_, series)| !there.contains(series)) {
                there.extend(discover(settings).await?.iter().map(|install| install.version.series()));
            }
            choose_on_farm(output, settings, &mut read, &there).await?;
        }
        let planned = screen.during(read.plan(&RenderPlace::Farm(&client))).await?;
        let Some(series) = planned.blender() else { return Ok(Err(planned.nothing_left())) };
        let worker = if args.no_local { None } else { join(output, settings, &client, series).await };
        let runs = screen.during(planned.submit(&client)).await?;
        Ok::<_, CommandError>(Ok((worker, runs)))
    };
    let begun = tokio::select! {
        begun = beginning => begun?,
        () = signals.next() => return Ok(Exit::Interrupted),
    };
    let (worker, runs) = match begun {
        Ok(begun) => begun,
        Err(results) => return tell_results(output, results),
    };
    name_jobs(output, &runs);
    let results = follow_runs(&mut screen, runs, JobHome::Farm, signals).await;
    if let Some(worker) = worker {
        // It may hold frames of other jobs: it returns them now, so that they do not wait for its lease to expire.
        tokio::select! {
            _ = worker.drain() => {}
            () = signals.next() => worker.stop_hard().await,
        }
    }
    tell_results(output, results?)
}

/// Lets this machine render too. If it cannot, the farm renders alone, with a warning.
async fn join(
    output: Output,
    settings: &Settings,
    client: &Client,
    series: BlenderSeries,
) -> Option<RunningWorker> {
    // A worker that runs here uses this machine's cores already; a second one would compete with it. An unavailable
    // worker leaves the cores to the person, who has started this command.
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let workers = client.workers().await.unwrap_or_default();
    let works = |state| !matches!(state, WorkerState::Offline | WorkerState::Unavailable);
    if workers.iter().any(|one| works(one.state) && one.machine.hostname == host) {
        return None;
    }
    let mut options = WorkerOptions::new(client.url(), client.key(), settings.data.value.join("worker"));
    apply(&mut options, settings);
    options.prestart = Some(series);
    match RunningWorker::start(options).await {
        Ok(worker) => Some(worker),
        Err(error) => {
            output.warning(&format!("this machine does not render for the job: {error}"));
            None
        }
    }
}
