//! The WebSocket of each worker: hello, messages in both directions, and the end.

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use kiln_api::{AttemptReport, BUILD, Down, Hello, OLDEST_PROTOCOL, PROTOCOL, Up};
use kiln_types::{AttemptId, BundleFile, Failure, ProductKind, TaskFile, WorkerId};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    app::App,
    arrivals::Arrival,
    made::bundle_of,
    scheduler::{CheckedReport, FarmState, Input, LinkHandle, MadeFiles, misbehaved},
};

/// Bytes of one message: the report of a bake with [`AttemptReport::MAX_FILES`] files of common names fits.
pub(crate) const MAX_MESSAGE: usize = 32 << 20;
/// Bytes of the buffer of each connection, which is cleared at each read: there are thousands, and most messages are short.
pub(crate) const READ_BUFFER: usize = 4 << 10;
/// Bytes of one piece of a log.
const MAX_LOG_PIECE: usize = 64 << 10;
/// The time within which a hello must arrive.
const HELLO_TIME: Duration = Duration::from_secs(10);
/// The time within which a worker must take a message.
const SEND_TIME: Duration = Duration::from_secs(20);
/// Messages to a worker that wait at most.
const OUT_QUEUE: usize = 4096;
/// Messages from a worker in one second; above, the connection is read more slowly.
const RATE: u32 = 2000;

static LINK_NUMBERS: AtomicU64 = AtomicU64::new(1);

/// Serves one worker until its connection ends.
pub(crate) async fn serve(app: Arc<App>, mut socket: WebSocket) {
    let hello = match tokio::time::timeout(HELLO_TIME, receive_hello(&mut socket)).await {
        Ok(Some(Ok(hello))) => hello,
        Ok(Some(Err(reason))) => {
            tracing::warn!(%reason, "worker refused");
            let _ = send(&mut socket, &Down::Refused { reason }).await;
            close(socket, close_code::POLICY, "refused").await;
            return;
        }
        Ok(None) | Err(_) => return,
    };
    let worker = hello.id;
    let arrival = app.scheduler.connect(worker);
    let waiting = arrival.receive();
    let number = LINK_NUMBERS.fetch_add(1, Ordering::Relaxed);
    let (out, downs) = mpsc::channel(OUT_QUEUE);
    let end = CancellationToken::new();
    app.scheduler
        .tell(Input::Join {
            hello: Box::new(hello),
            link: LinkHandle { number, out, end: end.clone() },
            waiting,
        })
        .await;
    app.scheduler.listen(&arrival);
    let mut link = Link { app: &app, worker, number, arrival, downs, end, rate: Rate::new() };
    let (code, why) = link.run(&mut socket).await;
    app.scheduler.tell(Input::Disconnected { worker, link: number }).await;
    tracing::debug!(%worker, why, "worker link ended");
    close(socket, code, why).await;
}

/// Returns `None` if the connection ends first; an `Err` is sent to the worker.
async fn receive_hello(socket: &mut WebSocket) -> Option<Result<Hello, String>> {
    loop {
        match socket.recv().await?.ok()? {
            Message::Text(text) => return Some(read_hello(&text)),
            Message::Binary(_) => return Some(Err("The first message must be a hello, as text.".to_owned())),
            Message::Close(_) => return None,
            Message::Ping(_) | Message::Pong(_) => {}
        }
    }
}

/// The part of a hello that every version of the protocol has.
#[derive(Deserialize)]
struct AnyHello {
    up: String,
    protocol: u32,
    #[serde(default)]
    build: String,
}

fn read_hello(text: &str) -> Result<Hello, String> {
    let any: AnyHello = serde_json::from_str(text)
        .ok()
        .filter(|any: &AnyHello| any.up == "hello")
        .ok_or("The first message must be a hello with a protocol number.")?;
    if !(OLDEST_PROTOCOL..=PROTOCOL).contains(&any.protocol) {
        let build: String = any.build.chars().take(40).flat_map(char::escape_default).collect();
        let advice =
            if any.protocol > PROTOCOL { "update Kiln on the server" } else { "update Kiln on this worker" };
        return Err(format!(
            "This worker (Kiln {build}) speaks protocol {} and the server (Kiln {BUILD}) {}; {advice}.",
            any.protocol,
            if OLDEST_PROTOCOL == PROTOCOL {
                PROTOCOL.to_string()
            } else {
                format!("{OLDEST_PROTOCOL} to {PROTOCOL}")
            },
        ));
    }
    match serde_json::from_str::<Up>(text) {
        Ok(Up::Hello(hello)) => Ok(*hello),
        Ok(_) => Err("The first message must be a hello.".to_owned()),
        Err(error) => Err(format!("The hello is not understood: {error}.")),
    }
}

struct Link<'a> {
    app: &'a App,
    worker: WorkerId,
    number: u64,
    arrival: Arc<Arrival>,
    downs: mpsc::Receiver<Down>,
    end: CancellationToken,
    rate: Rate,
}

/// The close code of the connection, and the reason.
type Closing = (u16, &'static str);

impl Link<'_> {
    async fn run(&mut self, socket: &mut WebSocket) -> Closing {
        let beat = Duration::from_millis(self.app.heartbeat_ms.max(1));
        let mut pings = tokio::time::interval(beat);
        pings.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = self.app.stop.cancelled() => return (close_code::AWAY, "the server stops"),
                () = self.end.cancelled() => return (close_code::AWAY, "replaced by a newer connection"),
                down = self.downs.recv() => {
                    let Some(down) = down else { return (close_code::AWAY, "removed") };
                    if send(socket, &down).await.is_err() {
                        return (close_code::ERROR, "it did not take a message");
                    }
                }
                message = socket.recv() => {
                    let Some(Ok(message)) = message else { return (close_code::NORMAL, "it left") };
                    if let ControlFlow::Break(closing) = self.receive(message).await {
                        return closing;
                    }
                    // While the message was passed on, nothing was read: that was no silence.
                    heard = Instant::now();
                }
                _ = pings.tick() => {
                    // Every WebSocket answers pings: silence means that the worker is gone.
                    if heard.elapsed() > beat * 4 {
                        return (close_code::AWAY, "it fell silent");
                    }
                    let ping = socket.send(Message::Ping(axum::body::Bytes::new()));
                    if !matches!(tokio::time::timeout(SEND_TIME, ping).await, Ok(Ok(()))) {
                        return (close_code::ERROR, "it did not take a ping");
                    }
                }
            }
        }
    }

    async fn receive(&mut self, message: Message) -> ControlFlow<Closing> {
        let text = match message {
            Message::Text(text) => text,
            Message::Ping(_) | Message::Pong(_) => return ControlFlow::Continue(()),
            Message::Close(_) => return ControlFlow::Break((close_code::NORMAL, "it said goodbye")),
            Message::Binary(_) => return ControlFlow::Break((close_code::UNSUPPORTED, "it sent bytes")),
        };
        let waiting = self.arrival.receive();
        self.rate.wait().await;
        let mut up = match serde_json::from_str::<Up>(&text) {
            Ok(up) => up,
            Err(error) => {
                // A newer worker may send messages that this server does not know yet.
                tracing::warn!(worker = %self.worker, %error, "unknown message ignored");
                self.app.scheduler.listen(&self.arrival);
                return ControlFlow::Continue(());
            }
        };
        match &mut up {
            Up::Log { text, .. } if text.len() > MAX_LOG_PIECE => {
                text.truncate(text.floor_char_boundary(MAX_LOG_PIECE));
            }
            _ => {}
        }
        let (worker, link) = (self.worker, self.number);
        let input = match up {
            Up::Finished { attempt, report, .. } => {
                // From the check of its files until they are recorded.
                let hold = self.app.holds.begin();
                let report = self.check_report(attempt, report).await;
                Input::Finished { worker, link, attempt, report, hold, waiting }
            }
            up => Input::Up { worker, link, up, waiting },
        };
        self.app.scheduler.tell(input).await;
        self.app.scheduler.listen(&self.arrival);
        ControlFlow::Continue(())
    }

    /// Checks that every byte of the reported files is here.
    async fn check_report(&self, attempt: AttemptId, report: AttemptReport) -> CheckedReport {
        let (files, seconds, peak_memory) = match report {
            AttemptReport::Done { files, seconds, peak_memory } => (files, seconds, peak_memory),
            AttemptReport::Failed { failure, seconds } => return CheckedReport::Failed { failure, seconds },
            AttemptReport::Returned => return CheckedReport::Returned,
        };
        match self.check_files(attempt, files).await {
            Ok(made) => CheckedReport::Done { made, seconds, peak_memory },
            Err(failure) => {
                tracing::warn!(worker = %self.worker, %failure, "report refused");
                CheckedReport::Failed { failure, seconds }
            }
        }
    }

    async fn check_files(&self, attempt: AttemptId, files: Vec<TaskFile>) -> Result<MadeFiles, Failure> {
        if files.len() > AttemptReport::MAX_FILES {
            let why = format!("The worker reported more than {} files.", AttemptReport::MAX_FILES);
            return Err(misbehaved(why));
        }
        // Pictures are not files of a bundle: only other files need a look at the attempt.
        if files.iter().all(|file| file.picture.is_none()) {
            let worker = self.worker;
            // After the hello, which may have resumed the attempt.
            let product = move |farm: &FarmState| farm.product_of(worker, attempt);
            let known = self.app.scheduler.read_after_messages(product).await;
            match known {
                Ok(Some((ProductKind::Bundle, spec))) => {
                    let files = files.into_iter().map(BundleFile::from).collect();
                    return bundle_of(self.app, &spec, files).await.map(MadeFiles::Bundle);
                }
                Ok(Some(_)) => {}
                // The attempt is another worker's, or has ended: the scheduler answers that.
                Ok(None) | Err(_) => return Ok(MadeFiles::Unknown),
            }
        }
        for file in &files {
            self.app.must_have(&file.path, &file.hash, file.size).await?;
        }
        Ok(MadeFiles::Files(files))
    }
}

async fn send(socket: &mut WebSocket, down: &Down) -> Result<(), axum::Error> {
    let text = serde_json::to_string(down).map_err(axum::Error::new)?;
    let sending = socket.send(Message::text(text));
    tokio::time::timeout(SEND_TIME, sending).await.map_err(axum::Error::new)?
}

async fn close(mut socket: WebSocket, code: u16, reason: &'static str) {
    let frame = CloseFrame { code, reason: reason.into() };
    let goodbye = async {
        let _ = socket.send(Message::Close(Some(frame))).await;
        // Waits for the worker's close frame, so that the worker sees an orderly end.
        while let Some(Ok(_)) = socket.recv().await {}
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), goodbye).await;
}

/// Slows a worker that sends more than [`RATE`] messages a second.
struct Rate {
    since: Instant,
    count: u32,
}

impl Rate {
    fn new() -> Self {
        Self { since: Instant::now(), count: 0 }
    }

    async fn wait(&mut self) {
        let second = Duration::from_secs(1);
        let elapsed = self.since.elapsed();
        if elapsed >= second {
            *self = Self::new();
        }
        self.count += 1;
        if self.count > RATE {
            tokio::time::sleep(second.saturating_sub(elapsed)).await;
            *self = Self::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_of_another_protocol_is_told_what_to_update() {
        let text = r#"{"up":"hello","protocol":99,"build":"9.9.9","shape":"unknown"}"#;
        let reason = read_hello(text).unwrap_err();
        assert!(reason.contains("protocol 99") && reason.contains("update Kiln on the server"), "{reason}");
        let reason = read_hello(r#"{"up":"hello","protocol":0}"#).unwrap_err();
        assert!(reason.contains("update Kiln on this worker"), "{reason}");
        for bad in ["", "{}", r#"{"up":"heartbeat"}"#, r#"{"up":"heartbeat","protocol":1}"#] {
            assert!(read_hello(bad).is_err(), "{bad}");
        }
    }
}
