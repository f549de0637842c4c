//! The loads of `bench/farm`, with few workers and for a short time, so that they do not break unnoticed.

#[allow(dead_code, reason = "the benchmark prints what is only counted here")]
#[path = "../../../client/examples/farm/load/mod.rs"]
mod load;

use std::time::Duration;

use load::{Failed, Measured, Nature, Stores, Target};

use crate::support::{Farm, soon};

const WORKERS: u32 = 20;

async fn target(farm: &Farm) -> Target {
    Target::prepare(farm.client.clone(), std::process::id()).await.unwrap()
}

/// Puts the load on a farm of its own, for a longer time if a short one was not enough to measure everything.
async fn measures(load: impl AsyncFn(&Target, Duration) -> Result<Measured, Failed>) {
    for moment in [1, 4, 16].map(|quarters| Duration::from_millis(250) * quarters) {
        let farm = Farm::start().await;
        let target = target(&farm).await;
        let measured = soon("the load", load(&target, moment)).await.unwrap();
        if measured.committed > u64::from(WORKERS) && !measured.to_string().contains("NaN") {
            return;
        }
        println!("in {moment:?}: {measured}");
    }
    panic!("a measurement is missing, see above");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_are_loaded_with_slots_free_and_with_none() {
    let nature = Nature { frame_ms: 10..=100, stores: Stores::Nothing, is_separate: false };
    measures(async |target, moment| load::workers(target, WORKERS, &nature, moment).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_store_outputs_over_connections_of_their_own() {
    let nature = Nature { frame_ms: 10..=100, stores: Stores::Mixed, is_separate: true };
    measures(async |target, moment| load::workers(target, WORKERS, &nature, moment).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lifecycles_run_through_with_outputs_stored_and_without() {
    for stores in [Stores::Nothing, Stores::Small] {
        measures(async |target, moment| load::lifecycles(target, WORKERS, moment, stores).await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_of_a_million_frames_is_listed_and_shown_while_it_runs() {
    measures(async |target, moment| load::million(target, WORKERS, moment).await).await;
}
