//! A farm inside one command: a server that nobody else uses, a worker and temporary data.

use std::{path::PathBuf, time::Duration};

use kiln_client::Client;
use kiln_server::{Durability, RunningServer, Server, ServerOptions};
use kiln_types::BlenderSeries;
use kiln_worker::{RunningWorker, WorkerOptions};
use tokio::time::timeout;

use crate::{
    commands::worker,
    exit::{CommandError, Outcome},
    scratch::Scratch,
    settings::Settings,
};

/// The time that the server gets to close its records.
const CLOSE_LIMIT: Duration = Duration::from_millis(500);

/// A farm that ends with its command. [`LocalFarm::end`] ends it in good order; to drop it ends it too, in the order of the
/// fields: the Blenders, the server, then the data.
pub struct LocalFarm {
    worker: RunningWorker,
    server: RunningServer,
    pub client: Client,
    scratch: Scratch,
}

impl LocalFarm {
    /// Starts the server and the worker, and a Blender of this series beside them.
    pub async fn start(settings: &Settings, series: Option<BlenderSeries>) -> Outcome<Self> {
        let data = settings.data.value.clone();
        let made = tokio::task::spawn_blocking(move || Scratch::new(&data));
        let fail = |why: String| {
            let data = settings.data.value.display();
            CommandError::bad_input(format!(
                "the data folder {data} cannot be used ({why}); choose another with --data"
            ))
        };
        let scratch =
            made.await.map_err(|error| fail(error.to_string()))?.map_err(|error| fail(error.to_string()))?;
        let home: PathBuf = scratch.path().join("server");
        let mut options = ServerOptions::new(&home);
        options.listen = ([127, 0, 0, 1], 0).into();
        options.durability = Durability::Ephemeral;
        options.retention = None;
        options.chunks = false;
        let server = Server::start(options).await?;
        let mut options = WorkerOptions::new(server.url(), server.key(), scratch.path().join("worker"));
        worker::apply(&mut options, settings);
        options.prestart = series;
        options.local_blobs = Some(home);
        let worker = RunningWorker::start(options).await?;
        let client = Client::new(server.url(), server.key())?;
        Ok(Self { worker, server, client, scratch })
    }

    /// Ends every Blender and the server at once, then removes the data: in this order, so that nobody writes there any longer.
    pub async fn end(self) {
        let Self { worker, server, client, scratch } = self;
        worker.stop_hard().await;
        drop((worker, client));
        if timeout(CLOSE_LIMIT, server.stop()).await.is_err() {
            tracing::debug!("local server stopped late");
        }
        drop(scratch);
    }
}
