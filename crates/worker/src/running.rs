//! The handle of a running worker.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{
        Mutex, broadcast,
        mpsc::{UnboundedSender, unbounded_channel},
        watch,
    },
    task::JoinHandle,
    time::timeout,
};

use crate::{
    event::WorkerEvent,
    options::{WorkerError, WorkerExit, WorkerOptions},
    worker::{WorkerActor, WorkerInput},
};

/// Events that a slow listener may fall behind.
const BACKLOG: usize = 4096;

/// The time that a worker may take to end its Blenders before its task is aborted.
const HARD_WITHIN: Duration = Duration::from_secs(5);

/// A worker at work. Dropping it ends it and every Blender of it at once.
#[derive(Debug)]
pub struct RunningWorker {
    inputs: UnboundedSender<WorkerInput>,
    events: broadcast::Sender<WorkerEvent>,
    /// Has all events since the start; for the first listener.
    first: std::sync::Mutex<Option<broadcast::Receiver<WorkerEvent>>>,
    end: watch::Receiver<Option<Arc<WorkerExit>>>,
    task: Mutex<JoinHandle<()>>,
}

impl RunningWorker {
    /// Takes a folder below the data folder and starts a worker. A server that is away is waited for; one that refuses
    /// shows as the worker's exit.
    ///
    /// # Errors
    /// If the options or the data folder cannot be used.
    pub async fn start(options: WorkerOptions) -> Result<Self, WorkerError> {
        let (inputs, incoming) = unbounded_channel();
        let (events, first) = broadcast::channel(BACKLOG);
        let worker = WorkerActor::prepare(options, inputs.clone(), events.clone()).await?;
        let (ended, end) = watch::channel(None);
        let task = tokio::spawn(async move {
            let exit = worker.run(incoming).await;
            ended.send_replace(Some(Arc::new(exit)));
        });
        Ok(Self { inputs, events, first: std::sync::Mutex::new(Some(first)), end, task: Mutex::new(task) })
    }

    /// Listens to events; the first listener gets all since the start.
    pub fn subscribe(&self) -> broadcast::Receiver<WorkerEvent> {
        let mut first = self.first.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        first.take().unwrap_or_else(|| self.events.subscribe())
    }

    /// Returns all tasks at once, also running ones, delivers finished files, and waits until the worker has left:
    /// seconds, not minutes. Dropping the future does not cancel that.
    pub async fn drain(&self) -> Arc<WorkerExit> {
        // It may have ended by itself.
        let _ = self.inputs.send(WorkerInput::Drain);
        self.wait().await
    }

    /// Ends every Blender now and returns no task; waits until they have ended.
    pub async fn stop_hard(&self) {
        let _ = self.inputs.send(WorkerInput::StopHard);
        if timeout(HARD_WITHIN, self.wait()).await.is_err() {
            let mut task = self.task.lock().await;
            task.abort();
            // It was aborted.
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
