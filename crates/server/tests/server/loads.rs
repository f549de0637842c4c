//! The loads of `bench/farm`, with few workers and for a moment: so that they still run when they are wanted.

#[allow(dead_code, reason = "the benchmark prints what is only counted here")]
#[path = "../../../client/examples/farm/load/mod.rs"]
mod load;

use std::time::Duration;

use load::{Measured, Target};

use crate::support::{Farm, soon};

const WORKERS: u32 = 20;
const MOMENT: Duration = Duration::from_millis(500);

async fn target(farm: &Farm) -> Target {
    Target::prepare(farm.client.clone(), std::process::id()).await.unwrap()
}

/// Something was done, and nothing of it took longer than anybody would wait.
fn check(measured: &Measured) {
    assert!(measured.committed > u64::from(WORKERS), "{measured}");
    assert!(
        !measured.to_string().contains("NaN"),
        "nothing was measured where something should be: {measured}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_are_loaded_with_slots_free_and_with_none() {
    let farm = Farm::start().await;
    let target = target(&farm).await;
    let measured = load::workers(&target, WORKERS, 10..=100, MOMENT);
    check(&soon("the load", measured).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lifecycles_run_through_with_outputs_stored_and_without() {
    for stores in [false, true] {
        let farm = Farm::start().await;
        let target = target(&farm).await;
        let measured = load::lifecycles(&target, WORKERS, MOMENT, stores);
        check(&soon("the load", measured).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_of_a_million_frames_is_listed_and_shown_while_it_runs() {
    let farm = Farm::start().await;
    let target = target(&farm).await;
    let measured = load::million(&target, WORKERS, MOMENT);
    check(&soon("the load", measured).await.unwrap());
}
