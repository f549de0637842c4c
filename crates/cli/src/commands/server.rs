//! `kiln server`.

use std::sync::Arc;

use kiln_server::{RunningServer, Server, ServerError, ServerOptions};
use kiln_worker::{RunningWorker, Worker, WorkerOptions};
use serde_json::json;

use super::{Context, worker::tell};
use crate::{
    args::{FarmArgs, ServerArgs},
    exit::{Exit, Fault, Outcome},
    settings::Settings,
    signals::Signals,
};

impl From<ServerError> for Fault {
    fn from(error: ServerError) -> Self {
        Self::no_server(error.to_string())
    }
}

pub async fn run(context: &Context, args: ServerArgs) -> Outcome<Exit> {
    let mut flags = context.flags(&FarmArgs::default());
    flags.listen = args.listen;
    flags.slots = args.slots;
    flags.threads = args.threads;
    flags.blender = args.blender;
    let settings = Settings::resolve(flags)?;
    let mut signals = Signals::new().map_err(|error| Fault::failed(error.to_string()))?;
    let mut options = ServerOptions::new(&settings.data.value);
    options.listen = settings.listen.value;
    options.insecure = args.insecure;
    let server = Server::start(options).await?;
    greet(context, &server, &settings);
    let worker = if args.worker { Some(start_worker(context, &server, &settings).await?) } else { None };
    stay(context, server, worker, &mut signals).await
}

fn greet(context: &Context, server: &RunningServer, settings: &Settings) {
    let url = server.url();
    let key = settings.data.value.join(crate::farm::KEY_FILE);
    let value = json!({ "url": url, "key_file": key, "data": settings.data.value });
    context.output.done(
        &value,
        &format!(
            "The farm is at {url}, its key in {}.\nAnother machine joins with: kiln worker --server {url} --key-file \
             farm.key\nCtrl-C ends the server; jobs go on at its next start.",
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
    options.local_blobs = Some(data.clone());
    let worker = Arc::new(Worker::start(options).await?);
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
                || Fault::no_server("the server ended by itself; start it again"),
                Fault::from,
            ));
        }
        () = signals.next() => {}
    }
    context.output.note("stopping; again to stop hard");
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
