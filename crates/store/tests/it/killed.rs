//! A process is killed while it commits: every acknowledged batch is in the records, and no batch is in them in part.

use std::path::Path;

use kiln_testkit::kill_midway;
use kiln_types::{EventNumber, JobId};

use crate::{STEP, committed, event, insert, open, opened, task};

const FOLDER: &str = "KILN_TEST_KILLED_FOLDER";
const ROUNDS: usize = 8;

/// Commits batches without end, each a job of its own, and prints the numbers of those that are safe.
#[tokio::test]
#[ignore = "runs in a process of its own, started and killed by the test below"]
async fn child() {
    let folder = std::env::var_os(FOLDER).unwrap();
    let store = open(Path::new(&folder)).await;
    for job in store.last_job().await.unwrap().0 + 1.. {
        let batch = vec![
            insert(job, "1-3"),
            event(Some(job), "first"),
            opened(job, task(job, 0), 0, 1),
            committed(job, task(job, 0), 0, 1),
            event(Some(job), "last"),
        ];
        let events = store.commit(batch).await.unwrap();
        println!("acked {job} {}", events[1].number);
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives() {
    let folder = tempfile::tempdir().unwrap();
    let mut acked = 0;
    for round in 1..=ROUNDS {
        let mut read = |line: &str| {
            let Some((_, numbers)) = line.split_once("acked ") else { return false };
            let (job, event) = numbers.split_once(' ').unwrap();
            acked = job.parse::<u64>().unwrap();
            assert_eq!(event.parse::<u64>().unwrap(), 2 * acked, "two events a batch, without a gap");
            true
        };
        let enough = rand::random_range(1..150);
        kill_midway("killed::child", (FOLDER, folder.path()), enough, &mut read);

        let store = open(folder.path()).await;
        assert_eq!(store.epoch().0 as usize, 2 * round, "an epoch for the child, and one for this check");
        let last = store.last_job().await.unwrap().0;
        assert!(last >= acked, "job {acked} was acknowledged, {last} is the last one there");
        let jobs = store.unfinished_jobs().await.unwrap();
        assert_eq!(jobs.len() as u64, last, "every batch up to the last is there");
        for job in &jobs {
            assert_eq!((job.row.steps[0].step, job.row.steps[0].done), (STEP, 1), "job {}", job.row.id);
            assert_eq!(store.outputs(job.row.id, 0, 9).await.unwrap().len(), 2, "job {}", job.row.id);
        }
        assert_eq!(store.last_event().await.unwrap(), EventNumber(2 * last));
        assert_eq!(store.events_after(EventNumber(0), 9, Some(JobId(last))).await.unwrap().len(), 2);
    }
}
