//! The loads: what is asked of the server, and what is measured of it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use kiln_api::Change;
use kiln_client::{Client, JobFilter};
use kiln_types::{AttemptId, JobId, TaskId};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    Failed, Measured, Target,
    measure::{Meter, open_files, resident_mb},
    swarm::{Log, Nature, Stores, Swarm},
};

/// Between two jobs that come to a farm with free slots.
const EVERY: Duration = Duration::from_millis(100);
/// Part of the slots that those keep busy.
const HALF: f64 = 0.5;
/// The number of times that a list and a page are requested.
const ASKED: u32 = 200;

/// A farm of a number of workers: first with half of the slots free, then with none.
pub async fn workers(
    target: &Target,
    count: u32,
    nature: &Nature,
    time: Duration,
) -> Result<Measured, Failed> {
    let mut measured = Measured::default();
    let mean_s = (nature.frame_ms.start() + nature.frame_ms.end()) as f64 / 2000.0;
    let (began, alone) = (Instant::now(), resident_mb(target.pid)?);
    let swarm = Swarm::join(&target.client, count, nature).await?;
    measured.line("workers connected", format!("{count}, in {:.1} s", began.elapsed().as_secs_f64()));
    let memory = resident_mb(target.pid)?;
    let each = (memory - alone) * 1024.0 / f64::from(count);
    measured.line("server's memory with all of them", format!("{memory:.0} MB, {each:.1} KB for each"));

    let watch = Watch::start(&target.client).await?;
    let (server, own) = (Meter::start(target.pid)?, Meter::start(std::process::id())?);
    let a_second = f64::from(count) * HALF / mean_s;
    let frames = ((a_second * EVERY.as_secs_f64()) as u32).max(1);
    let mut submitted = HashMap::new();
    let began = Instant::now();
    while began.elapsed() < time {
        let at = Instant::now();
        submitted.insert(target.submit(frames).await?.id, at);
        sleep(EVERY.saturating_sub(at.elapsed())).await;
    }
    measured.line("frames a second that come to free slots", format!("{a_second:.0}"));
    measured.processors(&server.stop()?, &own.stop()?);
    // So that all of it is over.
    while swarm.committed() < submitted.len() as u64 * u64::from(frames) {
        sleep(EVERY).await;
    }

    let (server, own) = (Meter::start(target.pid)?, Meter::start(std::process::id())?);
    let enough = count * (2 + (2.0 * time.as_secs_f64() / mean_s) as u32);
    let at = Instant::now();
    let job = target.submit(enough).await?.id;
    sleep(time / 4).await;
    let (from, before) = (Instant::now(), swarm.committed());
    sleep(time).await;
    let (until, after) = (Instant::now(), swarm.committed());
    let busy = (server.stop()?, own.stop()?);
    let (memory, files) = (resident_mb(target.pid)?, open_files(target.pid)?);
    let durable = watch.end().await?;
    let log = swarm.leave().await?;
    measured.committed = after;

    let (mut begun, mut on_disk) = starts(&log, &submitted, &durable);
    measured.times("free slots: job sent, to the start of each of its frames", &mut begun);
    measured.times("free slots: job sent, to that start on disk", &mut on_disk);
    let (mut wave, _) = starts(&log, &HashMap::from([(job, at)]), &durable);
    wave.sort_unstable();
    wave.truncate(count as usize);
    measured.times("one job for all slots at once: job sent, to the first frame of each slot", &mut wave);
    let rate = (after - before) as f64 / (until - from).as_secs_f64();
    measured.line("frames a second with every slot busy", format!("{rate:.0}"));
    let within = |times: &[(Instant, Duration)]| -> Vec<Duration> {
        times.iter().filter(|(at, _)| (from..until).contains(at)).map(|(_, took)| *took).collect()
    };
    measured.times(
        "every slot busy: end of a frame, to the start of the next in its slot",
        &mut within(&log.gaps),
    );
    let mut to_disk: Vec<Duration> = log
        .started
        .iter()
        .filter(|(_, _, at)| (from..until).contains(at))
        .filter_map(|(_, attempt, at)| Some(durable.get(attempt)?.saturating_duration_since(*at)))
        .collect();
    measured.times("every slot busy: start of a frame, to the start on disk", &mut to_disk);
    measured.times(
        "every slot busy: report of a frame, to the answer that it is on disk",
        &mut within(&log.settled),
    );
    if nature.stores != Stores::Nothing {
        measured.times("every slot busy: end of a frame, to its output stored", &mut within(&log.stored));
        measured.line(
            "outputs of the whole run",
            format!("{}, {:.0} MB", log.stored.len(), log.bytes as f64 / 1e6),
        );
    }
    measured.processors(&busy.0, &busy.1);
    measured.line("server's memory then", format!("{memory:.0} MB"));
    measured.line("server's files and connections open then", files.to_string());
    Ok(measured)
}

/// From when its job was sent, for each frame of these jobs: until a worker began it, and until that was on disk. What
/// a tail starts a second time counts once.
fn starts(
    log: &Log,
    submitted: &HashMap<JobId, Instant>,
    durable: &HashMap<AttemptId, Instant>,
) -> (Vec<Duration>, Vec<Duration>) {
    let mut first: HashMap<TaskId, (Instant, AttemptId)> = HashMap::new();
    for (task, attempt, at) in &log.started {
        let known = first.entry(*task).or_insert((*at, *attempt));
        *known = (*known).min((*at, *attempt));
    }
    let of_job = |task: &TaskId| submitted.get(&task.job).copied();
    let begun = first.iter().filter_map(|(task, (at, _))| Some(*at - of_job(task)?)).collect();
    let on_disk = first.iter().filter_map(|(task, (_, attempt))| {
        Some(durable.get(attempt)?.saturating_duration_since(of_job(task)?))
    });
    (begun, on_disk.collect())
}

/// Follows the farm's events: one comes when what it tells is on disk.
struct Watch {
    task: tokio::task::JoinHandle<Result<HashMap<AttemptId, Instant>, Failed>>,
    stop: CancellationToken,
}

impl Watch {
    async fn start(client: &Client) -> Result<Self, Failed> {
        let mut events = client.events(None, None).await?;
        let stop = CancellationToken::new();
        let task = tokio::spawn({
            let stop = stop.clone();
            async move {
                let mut started = HashMap::new();
                loop {
                    let event = tokio::select! {
                        () = stop.cancelled() => return Ok(started),
                        event = events.next() => event?,
                    };
                    if let Change::TaskStarted { attempt, .. } = event.change {
                        started.insert(attempt, Instant::now());
                    }
                }
            }
        });
        Ok(Self { task, stop })
    }

    async fn end(self) -> Result<HashMap<AttemptId, Instant>, Failed> {
        self.stop.cancel();
        self.task.await.map_err(|error| Failed::Odd(error.to_string()))?
    }
}

/// Frames that take no time: dispatched, started, reported to be half done, and committed.
pub async fn lifecycles(
    target: &Target,
    count: u32,
    time: Duration,
    stores: Stores,
) -> Result<Measured, Failed> {
    let mut measured = Measured::default();
    let swarm =
        Swarm::join(&target.client, count, &Nature { frame_ms: 0..=0, stores, is_separate: false }).await?;
    target.submit(1_000_000).await?;
    sleep(time / 4).await;
    let (server, own) = (Meter::start(target.pid)?, Meter::start(std::process::id())?);
    let (from, before) = (Instant::now(), swarm.committed());
    sleep(time).await;
    let (until, after) = (Instant::now(), swarm.committed());
    let (server, own) = (server.stop()?, own.stop()?);
    let log = swarm.leave().await?;
    measured.committed = after;
    let rate = (after - before) as f64 / (until - from).as_secs_f64();
    let what = match stores {
        Stores::Nothing => "lifecycles a second",
        Stores::Small | Stores::Mixed => "lifecycles a second, each with an output of its own stored",
    };
    measured.line(what, format!("{rate:.0}"));
    measured.line("server's own CPU for one", format!("{:.0} µs", server.share() / rate * 1e6));
    measured.line("load generator's own CPU for one", format!("{:.0} µs", own.share() / rate * 1e6));
    measured.processors(&server, &own);
    let mut settled: Vec<Duration> =
        log.settled.iter().filter(|(at, _)| (from..until).contains(at)).map(|(_, took)| *took).collect();
    measured.times("report of a frame, to the answer that it is on disk", &mut settled);
    measured.line("server's memory then", format!("{:.0} MB", resident_mb(target.pid)?));
    Ok(measured)
}

/// A job of a million frames, and what it costs to have it.
pub async fn million(target: &Target, count: u32, time: Duration) -> Result<Measured, Failed> {
    const FRAMES: u32 = 1_000_000;
    let mut measured = Measured::default();
    // What the server holds once it has had a job at all is not the million's.
    let swarm = Swarm::join(
        &target.client,
        count,
        &Nature { frame_ms: 50..=150, stores: Stores::Nothing, is_separate: false },
    )
    .await?;
    target.submit(count * 4).await?;
    while swarm.committed() < u64::from(count) * 4 {
        sleep(Duration::from_millis(20)).await;
    }
    let before = resident_mb(target.pid)?;
    let at = Instant::now();
    let job = target.submit(FRAMES).await?.id;
    measured.line(
        "a job of a million frames: sent, to the answer",
        format!("{:.3} s", at.elapsed().as_secs_f64()),
    );
    let ends = Instant::now() + time;
    let (mut lists, mut shows) = (Vec::new(), Vec::new());
    for _ in 0..ASKED {
        let at = Instant::now();
        let list = target.client.jobs(&JobFilter::default()).await?;
        lists.push(at.elapsed());
        let at = Instant::now();
        let shown = target.client.job(job).await?;
        shows.push(at.elapsed());
        if shown.tasks.total != FRAMES || list.jobs.is_empty() {
            return Err(Failed::Odd(format!("the job shows {} frames", shown.tasks.total)));
        }
        sleep(time / ASKED).await;
    }
    sleep(ends.saturating_duration_since(Instant::now())).await;
    measured.times("listing jobs while it runs", &mut lists);
    measured.times("showing it while it runs", &mut shows);
    measured.committed = swarm.committed();
    let grown = resident_mb(target.pid)? - before;
    measured.line("frames of it done then", (measured.committed - u64::from(count) * 4).to_string());
    measured.line("server's memory has grown by", format!("{grown:.0} MB"));
    swarm.leave().await?;
    Ok(measured)
}
