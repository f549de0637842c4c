//! `kiln worker`.

use std::sync::Arc;

use kiln_worker::{RunningWorker, WorkerError, WorkerEvent, WorkerExit, WorkerOptions};
use tokio::sync::broadcast::error::RecvError;

use super::Context;
use crate::{
    args::WorkerArgs,
    exit::{CommandError, Exit, Outcome},
    farm,
    output::{Output, OutputMode},
    settings::Settings,
    signals::Signals,
};

impl From<WorkerError> for CommandError {
    fn from(error: WorkerError) -> Self {
        fault(&error)
    }
}

fn fault(error: &WorkerError) -> CommandError {
    let exit = match error {
        WorkerError::Data { .. } | WorkerError::TooMany { .. } | WorkerError::Slots(_) => Exit::BadInput,
        WorkerError::Client(_) | WorkerError::Refused(_) | WorkerError::OldEpoch { .. } => Exit::NoServer,
        _ => Exit::Failed,
    };
    CommandError { exit, message: error.to_string() }
}

/// Applies the settings of a worker on this machine.
pub fn apply(options: &mut WorkerOptions, settings: &Settings) {
    options.installs = Some(settings.data.value.clone());
    options.blender_cache = Some(settings.cache.clone());
    options.name.clone_from(&settings.name.value);
    options.slots = settings.slots.value;
    options.threads = settings.threads.value;
    options.blenders.clone_from(&settings.blender.value);
    options.cache_bytes = settings.cache_size.value.0;
    options.shared.clone_from(&settings.shared.value);
    settings.limit(options);
}

pub async fn run(context: &Context, args: WorkerArgs) -> Outcome<Exit> {
    let flags = context.flags(&args.farm).and(&args.machine).and(&args.availability);
    let settings = Settings::resolve(flags)?;
    let mut signals = Signals::new().map_err(|error| CommandError::failed(error.to_string()))?;
    let client = farm::need(&settings)?;
    // A wrong key or version ends the command; the worker waits for a server that is away.
    match client.check().await {
        Err(error) if !error.is_transient() => return Err(error.into()),
        _ => {}
    }
    let data = settings.data.value.join("worker");
    let mut options = WorkerOptions::new(client.url(), client.key(), data);
    apply(&mut options, &settings);
    settings.serve(&mut options);
    let worker = Arc::new(RunningWorker::start(options).await?);
    tell(context.output, &worker);
    crate::service::ready::notify();
    tokio::select! {
        exit = worker.wait() => return ended(context.output, &exit),
        () = signals.next() => {}
    }
    context.output.note("returning the frames; press Ctrl-C again to stop at once");
    tokio::select! {
        exit = worker.drain() => ended(context.output, &exit),
        () = signals.next() => {
            worker.stop_hard().await;
            Ok(Exit::Interrupted)
        }
    }
}

fn ended(output: Output, exit: &WorkerExit) -> Outcome<Exit> {
    match exit {
        WorkerExit::Failed(error) => Err(fault(error)),
        WorkerExit::Dismissed(desired) => {
            output.note(&format!("the farm asked this worker to leave ({desired})"));
            Ok(Exit::Done)
        }
        WorkerExit::Drained | WorkerExit::Stopped => Ok(Exit::Done),
    }
}

/// Prints the events of a worker, a line for each.
pub fn tell(output: Output, worker: &Arc<RunningWorker>) {
    let mut events = worker.subscribe();
    tokio::spawn(async move {
        loop {
            match events.recv().await {
                Ok(event) => line(output, &event),
                // The terminal is slower than the worker: older events are skipped.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    });
}

/// An event as a line of JSON.
#[derive(serde::Serialize)]
struct Line<'a> {
    /// Unix milliseconds.
    at_ms: i64,
    #[serde(flatten)]
    event: &'a WorkerEvent,
}

fn line(output: Output, event: &WorkerEvent) {
    if output.reader() == OutputMode::Json {
        output.line(&Line { at_ms: jiff::Timestamp::now().as_millisecond(), event });
        return;
    }
    match event {
        WorkerEvent::NoBlender | WorkerEvent::Disconnected { .. } | WorkerEvent::Failed { .. } => {
            output.warning(&event.to_string());
        }
        // A frame is printed once, when it is delivered.
        WorkerEvent::Assigned { .. } | WorkerEvent::Started { .. } | WorkerEvent::Rendered { .. } => {}
        _ => output.note(&event.to_string()),
    }
}
