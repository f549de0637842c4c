//! A worker from the outside.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, broadcast, mpsc::UnboundedSender, watch},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    Happening, WorkerError, WorkerExit, WorkerOptions,
    worker::{self, Input},
};

/// Happenings that a slow listener may fall behind.
const BACKLOG: usize = 4096;

/// How long a worker may take to end its Blenders before it is torn down around them.
const HARD_WITHIN: Duration = Duration::from_secs(5);

/// Starts workers.
#[derive(Debug)]
pub struct Worker;

impl Worker {
    /// Takes a folder below the data folder and starts to work. Connecting is tried for as long as it takes; a
    /// server that refuses shows as the worker's exit.
    ///
    /// # Errors
    /// Where the options or the data folder cannot be used.
    pub async fn start(options: WorkerOptions) -> Result<RunningWorker, WorkerError> {
        let (inputs, incoming) = worker::channel();
        let (happenings, _) = broadcast::channel(BACKLOG);
        let first = happenings.subscribe();
        let worker = worker::Worker::prepare(options, inputs.clone(), happenings.clone()).await?;
        let (ended, end) = watch::channel(None);
        let task = tokio::spawn(async move {
            let exit = worker.run(incoming).await;
            ended.send_replace(Some(Arc::new(exit)));
        });
        Ok(RunningWorker {
            inputs,
            happenings,
            first: std::sync::Mutex::new(Some(first)),
            end,
            task: Mutex::new(task),
        })
    }
}

/// A worker at work. Dropping it ends it and every Blender of it at once.
#[derive(Debug)]
pub struct RunningWorker {
    inputs: UnboundedSender<Input>,
    happenings: broadcast::Sender<Happening>,
    /// Has heard everything from the start on; for the first who asks.
    first: std::sync::Mutex<Option<broadcast::Receiver<Happening>>>,
    end: watch::Receiver<Option<Arc<WorkerExit>>>,
    task: Mutex<JoinHandle<()>>,
}

impl RunningWorker {
    /// What happens here, for the terminal; the first to ask hears it from the start.
    pub fn subscribe(&self) -> broadcast::Receiver<Happening> {
        let mut first = self.first.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        first.take().unwrap_or_else(|| self.happenings.subscribe())
    }

    /// Hands back everything at once, also what renders, brings home what is rendered, and waits until the worker
    /// has left: seconds, not minutes. Giving up waiting does not call it off.
    pub async fn drain(&self) -> Arc<WorkerExit> {
        // It may have ended by itself.
        let _ = self.inputs.send(Input::Drain);
        self.wait().await
    }

    /// Ends every Blender now and hands nothing back; returns when they are gone.
    pub async fn stop_hard(&self) {
        let _ = self.inputs.send(Input::StopHard);
        if timeout(HARD_WITHIN, self.wait()).await.is_err() {
            let mut task = self.task.lock().await;
            task.abort();
            // An abort is no news.
            let _ = (&mut *task).await;
        }
    }

    /// Waits for the worker's end.
    pub async fn wait(&self) -> Arc<WorkerExit> {
        let mut end = self.end.clone();
        // A task that was aborted drops its end of the channel.
        let ended = end.wait_for(Option::is_some).await.ok().and_then(|exit| (*exit).clone());
        ended.unwrap_or_else(|| Arc::new(WorkerExit::Stopped))
    }
}

impl Drop for RunningWorker {
    fn drop(&mut self) {
        self.task.get_mut().abort();
    }
}
