//! The stream of changes has neither gap nor duplicate, wherever it is resumed.

use std::collections::BTreeMap;

use kiln_api::{Change, Event};
use kiln_client::EventStream;
use kiln_types::{EventNumber, JobState};
use reqwest::StatusCode;

use crate::support::{FakeWorker, Farm, soon};

async fn until_end(stream: &mut EventStream) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        let event = soon("an event", stream.next()).await.unwrap();
        let end = matches!(event.change, Change::JobState { state: JobState::Completed, .. });
        events.push(event);
        if end {
            return events;
        }
    }
}

#[tokio::test]
async fn the_stream_can_be_resumed_anywhere() {
    let farm = Farm::start().await;
    let client = farm.client.clone();
    // One listens from the beginning, while it happens.
    let mut live = client.events(Some(EventNumber(0)), None).await.unwrap();
    let listening = tokio::spawn(async move { until_end(&mut live).await });
    let mut worker = FakeWorker::join(&farm, 1, "alpha", 2).await;
    let job = farm.submit("1-20").await;
    worker.render(20).await;
    let all = soon("the end of the job", listening).await.unwrap();
    let numbers: Vec<u64> = all.iter().map(|event| event.number.0).collect();
    let want: Vec<u64> = (1..=numbers.len() as u64).collect();
    assert_eq!(numbers, want);

    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for event in &all {
        let kind = match event.change {
            Change::TaskDone { .. } => "done",
            Change::TaskStarted { .. } => "started",
            Change::JobCreated { .. } => "created",
            _ => continue,
        };
        *kinds.entry(kind).or_default() += 1;
        if kind != "created" {
            assert_eq!(event.worker.as_deref(), Some("alpha"));
        }
    }
    assert_eq!(kinds, BTreeMap::from([("created", 1), ("done", 20), ("started", 20)]));

    for since in [0, 1, numbers.len() as u64 / 2, numbers.len() as u64 - 1] {
        let mut stream = client.events(Some(EventNumber(since)), Some(job.id)).await.unwrap();
        let rest = until_end(&mut stream).await;
        let want: Vec<&Event> =
            all.iter().filter(|event| event.number.0 > since && event.job == Some(job.id)).collect();
        assert_eq!(rest.iter().collect::<Vec<_>>(), want, "since {since}");
    }
}

#[tokio::test]
async fn the_stream_outlives_a_restart() {
    let farm = Farm::start().await;
    let job = farm.submit("1-2").await;
    let farm = farm.restart().await;
    let mut worker = FakeWorker::join(&farm, 1, "alpha", 1).await;
    worker.render(2).await;
    let mut stream = farm.client.events(Some(EventNumber(0)), Some(job.id)).await.unwrap();
    let all = until_end(&mut stream).await;
    assert!(matches!(all[0].change, Change::JobCreated { .. }));
    assert!(all.windows(2).all(|pair| pair[0].number < pair[1].number));
}

#[tokio::test]
async fn a_broken_number_is_refused() {
    let farm = Farm::start().await;
    let request = farm.request(reqwest::Method::GET, "/api/v1/events").header("Last-Event-ID", "yesterday");
    assert_eq!(request.send().await.unwrap().status(), StatusCode::BAD_REQUEST);
}
