//! The stream of server-sent events, which continues after a broken connection.

use std::{pin::Pin, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use kiln_api::Event;
use kiln_types::{EventNumber, JobId};
use reqwest::{Method, header};
use tokio::time::Instant;

use crate::{Backoff, Client, ClientError, routes};

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Bytes. A Kiln server sends no longer event.
const LONGEST_EVENT: usize = 1 << 20;

/// The events of the farm or of one job, in order and complete.
pub struct EventStream {
    client: Client,
    job: Option<JobId>,
    /// The last event that was returned.
    since: Option<EventNumber>,
    body: Option<Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>>,
    parser: Parser,
    backoff: Backoff,
    /// The moment from which a broken stream may be opened again. A duration would start again whenever `next` is cancelled.
    open_at: Instant,
}

impl Client {
    /// Opens the stream of events after `since`, or from now on. No event after the return is missed.
    pub async fn events(
        &self,
        since: Option<EventNumber>,
        job: Option<JobId>,
    ) -> Result<EventStream, ClientError> {
        let mut stream = EventStream::new(self.clone(), since, job);
        stream.open().await?;
        Ok(stream)
    }
}

impl EventStream {
    fn new(client: Client, since: Option<EventNumber>, job: Option<JobId>) -> Self {
        Self {
            client,
            job,
            since,
            body: None,
            parser: Parser::default(),
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
            open_at: Instant::now(),
        }
    }

    /// Waits for the next event. After an error that [is transient](ClientError::is_transient) call it again: after a wait, which
    /// grows, the stream continues behind the last event. Safe to cancel.
    pub async fn next(&mut self) -> Result<Event, ClientError> {
        loop {
            while let Some(message) = self.parser.next() {
                let Ok(event) = serde_json::from_str::<Event>(&message.data) else {
                    // A newer server knows more kinds of changes; their numbers count.
                    self.since = message.id.or(self.since);
                    continue;
                };
                self.since = Some(event.number);
                self.backoff.succeeded();
                return Ok(event);
            }
            let Some(body) = &mut self.body else {
                tokio::time::sleep_until(self.open_at).await;
                self.open().await?;
                continue;
            };
            let broken =
                |why: &str| ClientError::Broken { url: self.client.url().to_owned(), why: why.to_owned() };
            let error = match body.next().await {
                Some(Ok(bytes)) => match self.parser.push(&bytes) {
                    Ok(()) => continue,
                    Err(TooLong) => broken("an event that is too long"),
                },
                Some(Err(error)) => self.client.unreachable(&error),
                None => broken("the stream of events ended"),
            };
            self.disconnect();
            return Err(error);
        }
    }

    /// Returns the number of the last event that was returned.
    pub fn last(&self) -> Option<EventNumber> {
        self.since
    }

    fn disconnect(&mut self) {
        self.body = None;
        self.parser = Parser::default();
        self.open_at = Instant::now() + self.backoff.failed();
    }

    async fn open(&mut self) -> Result<(), ClientError> {
        let job = self.job.as_ref().map(|job| job as &(dyn std::fmt::Display + Sync));
        let mut request = self
            .client
            .request(Method::GET, &routes::with(routes::events(), &[("job", job)]))
            .header(header::ACCEPT, "text/event-stream");
        if let Some(since) = self.since {
            request = request.header("last-event-id", since.0);
        }
        match self.client.send(request).await {
            Ok(response) => {
                self.body = Some(Box::pin(response.bytes_stream()));
                Ok(())
            }
            Err(error) => {
                self.disconnect();
                Err(error)
            }
        }
    }
}

/// An event of the stream, before it is read as JSON.
#[derive(Debug, PartialEq, Eq)]
struct Message {
    id: Option<EventNumber>,
    data: String,
}

#[derive(Debug)]
struct TooLong;

/// Makes whole messages of pieces of the stream.
#[derive(Default)]
struct Parser {
    buffer: Vec<u8>,
    ready: std::collections::VecDeque<Message>,
    data: Option<String>,
    id: Option<EventNumber>,
}

impl Parser {
    fn push(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        self.buffer.extend_from_slice(bytes);
        let mut done = 0;
        while let Some(length) = self.buffer[done..].iter().position(|byte| *byte == b'\n') {
            let line = self.buffer[done..done + length].to_vec();
            done += length + 1;
            self.line(&String::from_utf8_lossy(&line));
        }
        self.buffer.drain(..done);
        let held = self.buffer.len() + self.data.as_ref().map_or(0, String::len);
        if held > LONGEST_EVENT { Err(TooLong) } else { Ok(()) }
    }

    fn line(&mut self, line: &str) {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            if let Some(data) = self.data.take() {
                self.ready.push_back(Message { id: self.id, data });
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            "id" => self.id = value.parse().ok().or(self.id),
            // Comments keep the connection alive; the event's name is also in its data.
            _ => {}
        }
    }

    fn next(&mut self) -> Option<Message> {
        self.ready.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pieces: &[&str]) -> Vec<(Option<u64>, String)> {
        let mut parser = Parser::default();
        for piece in pieces {
            parser.push(piece.as_bytes()).unwrap();
        }
        std::iter::from_fn(|| parser.next()).map(|m| (m.id.map(|id| id.0), m.data)).collect()
    }

    #[test]
    fn messages_come_whole_however_they_are_cut() {
        let text =
            ": hello\n\nid: 7\nevent: task-done\ndata: {\"a\":\ndata: 1}\n\nid:8\r\ndata:x\r\n\r\ndata: cut";
        let want = vec![(Some(7), "{\"a\":\n1}".to_owned()), (Some(8), "x".to_owned())];
        assert_eq!(parse(&[text]), want);
        let letters: Vec<String> = text.chars().map(String::from).collect();
        assert_eq!(parse(&letters.iter().map(String::as_str).collect::<Vec<_>>()), want);
    }

    #[tokio::test]
    async fn a_stream_that_is_cancelled_again_and_again_is_opened_all_the_same() {
        // Nobody listens there.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let mut stream = EventStream::new(Client::new(url, "key").unwrap(), None, None);
        // The waits are longer than the time that each `next` gets.
        for _ in 0..4 {
            stream.disconnect();
        }
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(60) {
            let next = tokio::time::timeout(Duration::from_millis(50), stream.next()).await;
            if let Ok(opened) = next {
                assert!(opened.unwrap_err().is_transient());
                return;
            }
        }
        panic!("it was never opened");
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut parser = Parser::default();
        assert!(parser.push(&vec![b'a'; LONGEST_EVENT + 1]).is_err());
    }
}
