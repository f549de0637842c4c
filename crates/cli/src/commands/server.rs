//! `kiln server`.

use std::sync::Arc;

use kiln_client::{Client, EventStream};
use kiln_server::{RunningServer, Server, ServerError, ServerOptions};
use kiln_types::JobId;
use kiln_worker::{RunningWorker, WorkerOptions};
use serde_json::json;

use super::{Context, worker::tell};
use crate::{
    args::{CollectArgs, FarmArgs, ServerArgs, ServerCommand},
    exit::{CommandError, Exit, Outcome},
    output::{Output, OutputMode, table::table, text::shown},
    settings::Settings,
    signals::Signals,
    size::ByteSize,
};

impl From<ServerError> for CommandError {
    fn from(error: ServerError) -> Self {
        Self::no_server(error.to_string())
    }
}

pub async fn run(context: &Context, args: ServerArgs) -> Outcome<Exit> {
    if let Some(ServerCommand::Collect(args)) = args.command {
        return collect(context, &args).await;
    }
    if !args.worker && !args.availability.flags().is_empty() {
        return Err(CommandError::bad_input(
            "options of this machine need --worker: without it nothing renders here",
        ));
    }
    let flags = context.flags(&FarmArgs::default()).and(&args.listen).and(&args.render).and(&args.retention);
    let settings = Settings::resolve(flags.and(&args.availability))?;
    let mut signals = Signals::new().map_err(|error| CommandError::failed(error.to_string()))?;
    let mut options = ServerOptions::new(&settings.data.value);
    options.listen = settings.listen.value;
    options.insecure = args.insecure;
    options.retention = Some(settings.retention());
    if let Some(stall) = args.stall {
        options.stall = stall.into();
    }
    let server = Server::start(options).await?;
    greet(context, &server, &settings);
    if context.output.reader() == OutputMode::Json {
        tokio::spawn(print_events(context.output, events(&server).await?));
    }
    let worker = if args.worker { Some(start_worker(context, &server, &settings).await?) } else { None };
    crate::service::ready::notify();
    stay(context, server, worker, &mut signals).await
}

async fn collect(context: &Context, args: &CollectArgs) -> Outcome<Exit> {
    let client = crate::farm::need(&context.settings(&args.farm)?)?;
    let removed = client.collect(args.dry_run).await?;
    context.output.result(&removed, || {
        let jobs = |ids: &[JobId]| match ids {
            [] => "none".to_owned(),
            [first, more @ ..] => more.iter().fold(first.to_string(), |all, id| format!("{all}, {id}")),
        };
        let of = |bytes| if bytes == 0 { "nothing".to_owned() } else { ByteSize(bytes).to_string() };
        let rows = [
            ("files of jobs", jobs(&removed.inputs)),
            ("frames of jobs", jobs(&removed.outputs)),
            ("logs of jobs", jobs(&removed.logs)),
            ("bundles", removed.bundles.to_string()),
            ("tasks with intermediate files", removed.intermediates.to_string()),
            ("uploads", removed.uploads.to_string()),
            ("blobs", format!("{}, {}", removed.blobs, of(removed.bytes))),
            ("logs", of(removed.log_bytes)),
            ("events", removed.events.to_string()),
        ];
        let head = if args.dry_run { "WOULD BE REMOVED" } else { "REMOVED" };
        table(&[head, ""], rows.map(|(what, count)| vec![what.to_owned(), count]))
    });
    Ok(Exit::Done)
}

/// Returns the events of the farm from its start.
async fn events(server: &RunningServer) -> Outcome<EventStream> {
    Ok(Client::new(server.url(), server.key())?.events(None, None).await?)
}

/// Prints each event of the farm as a line.
async fn print_events(output: Output, mut events: EventStream) {
    loop {
        match events.next().await {
            Ok(event) => output.line(&event),
            Err(error) if error.is_transient() => {}
            Err(error) => {
                return output.warning(&format!("the farm's events are no longer printed: {error}"));
            }
        }
    }
}

fn greet(context: &Context, server: &RunningServer, settings: &Settings) {
    let url = server.url();
    let key = settings.data.value.join(crate::farm::KEY_FILE);
    if context.output.reader() == OutputMode::Json {
        let at_ms = jiff::Timestamp::now().as_millisecond();
        let data = &settings.data.value;
        context
            .output
            .line(&json!({ "at_ms": at_ms, "kind": "started", "url": url, "key_file": shown(Some(&key)), "data": shown(Some(data)) }));
        return;
    }
    context.output.done(
        &(),
        &format!(
            "The farm is at {url}, its key in {}.\nAnother machine joins with: kiln worker --server {url} --key-file \
             farm.key\nCtrl-C ends the server; jobs continue at its next start.",
            key.display()
        ),
    );
}

async fn start_worker(
    context: &Context,
    server: &RunningServer,
    settings: &Settings,
) -> Outcome<Arc<RunningWorker>> {
    let data = &settings.data.value;
    let mut options = WorkerOptions::new(server.url(), server.key(), data.join("worker"));
    super::worker::apply(&mut options, settings);
    settings.serve(&mut options);
    options.local_blobs = Some(data.clone());
    let worker = Arc::new(RunningWorker::start(options).await?);
    tell(context.output, &worker);
    Ok(worker)
}

async fn stay(
    context: &Context,
    mut server: RunningServer,
    worker: Option<Arc<RunningWorker>>,
    signals: &mut Signals,
) -> Outcome<Exit> {
    tokio::select! {
        ended = server.wait() => {
            if let Some(worker) = &worker {
                worker.stop_hard().await;
            }
            return Err(ended.err().map_or_else(
                || CommandError::no_server("the server ended by itself; start it again"),
                CommandError::from,
            ));
        }
        () = signals.next() => {}
    }
    context.output.note("stopping; press Ctrl-C again to stop at once");
    let orderly = async {
        if let Some(worker) = &worker {
            worker.drain().await;
        }
        server.stop().await
    };
    tokio::select! {
        ended = orderly => ended?,
        () = signals.next() => {
            if let Some(worker) = &worker {
                worker.stop_hard().await;
            }
            return Ok(Exit::Interrupted);
        }
    }
    Ok(Exit::Done)
}
