//! The connection to the server: made, kept, made again.

use std::time::Duration;

use kiln_api::{Down, Hello, Up, Welcome};
use kiln_client::{Backoff, Client, ClientError, LinkReceiver, LinkSender};
use tokio::{
    sync::{
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
        oneshot,
    },
    time::{Instant, Interval, MissedTickBehavior, interval_at, timeout},
};

use crate::{options::WorkerError, sink::EventSink, transfer};

/// The time that a server may take to answer a hello.
const WELCOME_WITHIN: Duration = Duration::from_secs(15);
/// After so long without a word the server is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(30);

/// An event of the connection.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// A connection is there, and asks for the hello.
    Hello(oneshot::Sender<Box<Hello>>),
    /// Messages may be sent here until the connection is lost. Dropping the sender closes it.
    Up(Box<Welcome>, UnboundedSender<Up>),
    Down(Box<Down>),
    Disconnected {
        why: String,
        retry: Duration,
    },
    /// The server refuses: it is not tried again.
    Failed(WorkerError),
}

/// The end of a connection.
enum End {
    Broken(String),
    /// The worker has closed it.
    Closed,
    Failed(WorkerError),
}

/// Keeps the connection up until the worker closes it or the server refuses.
pub(crate) async fn run(client: Client, events: EventSink<LinkEvent>) {
    let mut backoff = transfer::backoff();
    loop {
        let why = match connect(&client, &events, &mut backoff).await {
            End::Closed => return,
            End::Failed(error) => {
                events.send(LinkEvent::Failed(error));
                return;
            }
            End::Broken(why) => why,
        };
        let retry = backoff.failed();
        if !events.send(LinkEvent::Disconnected { why, retry }) {
            return;
        }
        tokio::time::sleep(retry).await;
    }
}

fn broken(error: ClientError) -> End {
    if error.is_transient() { End::Broken(error.to_string()) } else { End::Failed(error.into()) }
}

async fn connect(client: &Client, events: &EventSink<LinkEvent>, backoff: &mut Backoff) -> End {
    let mut link = match client.connect_worker().await {
        Ok(link) => link,
        Err(error) => return broken(error),
    };
    let (ask, answer) = oneshot::channel();
    if !events.send(LinkEvent::Hello(ask)) {
        return End::Closed;
    }
    let Ok(hello) = answer.await else { return End::Closed };
    if let Err(error) = link.send(&Up::Hello(hello)).await {
        return broken(error);
    }
    let welcome = match timeout(WELCOME_WITHIN, link.recv()).await {
        Ok(Ok(Some(Down::Welcome(welcome)))) => welcome,
        Ok(Ok(Some(Down::Refused { reason }))) => return End::Failed(WorkerError::Refused(reason)),
        Ok(Ok(Some(_))) => {
            return End::Broken(format!("the server {} did not answer the hello", client.url()));
        }
        Ok(Ok(None)) => return End::Broken(format!("the server {} closed the connection", client.url())),
        Ok(Err(error)) => return broken(error),
        Err(_) => return End::Broken(format!("the server {} does not answer", client.url())),
    };
    backoff.succeeded();
    let beat = Duration::from_millis(welcome.heartbeat_ms.max(100));
    let (up, outgoing) = unbounded_channel();
    if !events.send(LinkEvent::Up(Box::new(welcome), up)) {
        return End::Closed;
    }
    talk(client, link, events, outgoing, beat).await
}

/// Sends and receives until the connection ends. Neither waits for the other: a server that sends much and reads little
/// is listened to all the same, and one that is gone is noticed while a message to it waits.
async fn talk(
    client: &Client,
    link: kiln_client::WorkerLink,
    events: &EventSink<LinkEvent>,
    outgoing: UnboundedReceiver<Up>,
    beat: Duration,
) -> End {
    let (sender, receiver) = link.split();
    tokio::select! {
        end = listen(client, receiver, events, beat) => end,
        end = speak(sender, outgoing, beat) => end,
    }
}

async fn listen(
    client: &Client,
    mut receiver: LinkReceiver,
    events: &EventSink<LinkEvent>,
    beat: Duration,
) -> End {
    let mut beats = beats(beat);
    let mut heard = Instant::now();
    loop {
        let down = tokio::select! {
            down = receiver.recv() => down,
            _ = beats.tick() => {
                // A machine that lost its power closes no connection: silence is looked into.
                if heard.elapsed() >= SILENCE {
                    if let Err(error) = client.info().await {
                        return End::Broken(error.to_string());
                    }
                    heard = Instant::now();
                }
                continue;
            }
        };
        match down {
            Ok(Some(Down::Refused { reason })) => return End::Failed(WorkerError::Refused(reason)),
            Ok(Some(down)) => {
                heard = Instant::now();
                if !events.send(LinkEvent::Down(Box::new(down))) {
                    return End::Closed;
                }
            }
            Ok(None) => return End::Broken(format!("the server {} closed the connection", client.url())),
            Err(error) => return End::Broken(error.to_string()),
        }
    }
}

async fn speak(mut sender: LinkSender, mut outgoing: UnboundedReceiver<Up>, beat: Duration) -> End {
    let mut beats = beats(beat);
    loop {
        let up = tokio::select! {
            up = outgoing.recv() => up,
            _ = beats.tick() => Some(Up::Heartbeat),
        };
        let Some(up) = up else {
            sender.close().await;
            return End::Closed;
        };
        if let Err(error) = sender.send(&up).await {
            return End::Broken(error.to_string());
        }
    }
}

fn beats(beat: Duration) -> Interval {
    let mut beats = interval_at(Instant::now() + beat, beat);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beats
}

#[cfg(test)]
mod tests {
    use axum::{
        Router,
        extract::{WebSocketUpgrade, ws::Message},
        routing::get,
    };
    use kiln_types::DesiredState;
    use tokio::{net::TcpListener, time::sleep};

    use super::*;

    /// A server that reads nothing, and says something all the time.
    async fn deaf(upgrade: WebSocketUpgrade) -> axum::response::Response {
        upgrade.on_upgrade(|mut socket| async move {
            let desired =
                serde_json::to_string(&Down::DesiredState { desired: DesiredState::Paused }).unwrap();
            while socket.send(Message::text(desired.clone())).await.is_ok() {
                sleep(Duration::from_millis(10)).await;
            }
        })
    }

    #[tokio::test]
    async fn a_message_that_waits_for_the_server_keeps_nobody_from_listening() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::new(format!("http://{}", listener.local_addr().unwrap()), "key").unwrap();
        let router = Router::new().route("/api/v1/worker", get(deaf));
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        let link = client.connect_worker().await.unwrap();
        // More than the network holds between two that do not read.
        let (up, outgoing) = unbounded_channel();
        for _ in 0..64 {
            up.send(Up::Log { attempt: "1-1".parse().unwrap(), text: "x".repeat(1 << 20) }).unwrap();
        }
        let (sender, mut heard) = unbounded_channel();
        let events = EventSink::new(sender, |event: LinkEvent| event);
        let talking = talk(&client, link, &events, outgoing, Duration::from_secs(3600));
        let hundred = async {
            for _ in 0..100 {
                assert!(matches!(heard.recv().await, Some(LinkEvent::Down(_))));
            }
        };
        tokio::select! {
            _ = talking => panic!("the connection is over"),
            done = timeout(Duration::from_secs(20), hundred) => done.expect("nobody listens"),
        }
        server.abort();
    }
}
