//! A farm inside one command: a server nobody else hears of, a worker beside it, throw-away data.

use std::path::PathBuf;

use kiln_client::Client;
use kiln_server::{Durability, RunningServer, Server, ServerOptions};
use kiln_types::BlenderSeries;
use kiln_worker::{RunningWorker, Worker, WorkerOptions};

use crate::{
    commands::worker,
    exit::{Fault, Outcome},
    scratch::Scratch,
    settings::Settings,
};

/// Dropping it ends it. Fields go in their order: the Blenders, the server, then the data.
pub struct Inside {
    worker: RunningWorker,
    _server: RunningServer,
    pub client: Client,
    _scratch: Scratch,
}

impl Inside {
    /// Starts both; a Blender of this series comes up meanwhile.
    ///
    /// # Errors
    /// Where the data folder cannot be written or no port is free.
    pub async fn start(settings: &Settings, series: BlenderSeries) -> Outcome<Self> {
        let data = settings.data.value.clone();
        let made = tokio::task::spawn_blocking(move || Scratch::new(&data));
        let fail = |why: String| {
            let data = settings.data.value.display();
            Fault::bad_input(format!(
                "the data folder {data} cannot be used ({why}); choose another with --data"
            ))
        };
        let scratch =
            made.await.map_err(|error| fail(error.to_string()))?.map_err(|error| fail(error.to_string()))?;
        let home: PathBuf = scratch.path().join("server");
        let mut options = ServerOptions::new(&home);
        options.listen = ([127, 0, 0, 1], 0).into();
        options.durability = Durability::Ephemeral;
        let server = Server::start(options).await?;
        let mut options = WorkerOptions::new(server.url(), server.key(), scratch.path().join("worker"));
        worker::apply(&mut options, settings);
        options.prestart = Some(series);
        options.local_blobs = Some(home);
        let worker = Worker::start(options).await?;
        let client = Client::new(server.url(), server.key())?;
        Ok(Self { worker, _server: server, client, _scratch: scratch })
    }

    /// Ends every Blender, and takes the data away. Nothing waits for anything graceful: all of it is thrown away.
    pub async fn end(self) {
        self.worker.stop_hard().await;
    }
}
