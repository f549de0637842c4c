//! `kiln jobs wait` and `kiln jobs fetch`, and the end that every stay with a job has.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use kiln_api::{JobReport, JobView};
use kiln_client::{Backoff, Client, Existing, Fetcher, How, Manifest, OutFolder, ToRender};
use kiln_types::{JobId, SuspiciousFrames};
use serde_json::json;

use super::{Context, closing_table};
use crate::{
    args::FetchArgs,
    exit::{Exit, Fault, Outcome},
    failed::{explain, failed_tasks, gone},
    farm,
    follow::{End, Stay, Whose, follow},
    marker::Marker,
    output::{
        Reader,
        suspicious::summary,
        text::{self, count, shown},
    },
    settings::Settings,
    signals::Signals,
};

/// The time for which a command waits for a server that is away once the job has ended.
const PATIENCE: Duration = Duration::from_secs(25);
/// The longest wait between two questions to it.
const LONGEST_WAIT: Duration = Duration::from_secs(13);

/// The exit of a stay, and what a person or a program is told at its end.
pub struct Ending<'a> {
    pub stay: Stay,
    pub out: Option<&'a std::path::Path>,
    /// What was there when the job was made.
    pub before: Option<&'a ToRender>,
    /// What was told of the scene's files.
    pub notices: &'a [String],
}

impl Ending<'_> {
    /// Prints it.
    pub async fn tell(self, context: &Context, client: &Client) -> Outcome<Exit> {
        let Self { stay, out, before, notices } = self;
        let (kept, skipped) = before.map_or((0, 0), |before| (before.kept, before.skipped));
        let older = before.map_or(0, |before| before.older);
        let output = context.output;
        let exit = stay.exit();
        let id = stay.job.id;
        if stay.end == End::Stopped {
            output.note("stopped; the frames that are done stay, and the same command continues");
        }
        if stay.end == End::Detached {
            output.note(&format!(
                "job {id} goes on; `kiln jobs wait {id}` attaches again, `kiln jobs fetch {id}` brings its frames"
            ));
        }
        let (report, failed) = if stay.end == End::Ended {
            (final_report(context, client, id).await?, failed_tasks(client, &stay.job).await?)
        } else {
            (None, Vec::new())
        };
        explain(output, client, &stay.job, &failed).await?;
        if let Some(fault) = &stay.trouble {
            output.error_line(fault);
        }
        if !stay.left.is_empty() {
            output.warning(&format!(
                "{} left as they were; `kiln jobs fetch {id} --existing overwrite` replaces them",
                count(stay.left.len() as u64, "file")
            ));
        }
        let mut suspicious = before.map(|before| before.suspicious.clone()).unwrap_or_default();
        if let Some(report) = &report {
            suspicious = suspicious.and(report.suspicious.clone());
        }
        let left: Vec<_> = stay.left.iter().map(|(_, path)| path).collect();
        let value = json!({
            "end": stay.end, "job": stay.job, "out": shown(out), "landed": stay.landed, "kept": kept, "skipped": skipped,
            "replaced": stay.replaced, "older": older, "left": left, "failed": failed, "report": report,
            "suspicious": suspicious, "notices": notices,
            "exit_code": exit as i32,
        });
        output.result(&value, || {
            let mut text = report
                .as_ref()
                .filter(|report| {
                    report.workers.iter().any(|w| w.frames + w.errors > 0) && output.reader() == Reader::Human
                })
                .map_or_else(String::new, |report| format!("{}\n", closing_table(report)));
            if let Some(out) = out
                && stay.landed + kept > 0
            {
                text.push_str(&format!("{} in {}\n", count(stay.landed + kept, "frame"), text::path(out)));
            }
            for line in replaced_line(stay.replaced)
                .into_iter()
                .chain(summary(&suspicious, stay.job.tasks.total + kept))
            {
                text.push_str(&format!("{line}\n"));
            }
            if exit == Exit::Cancelled && stay.end == End::Ended {
                text.push_str(&format!("Job {id} was cancelled.\n"));
            }
            text
        });
        Ok(exit)
    }
}

/// The report of a job that has ended. A server that is away just then is waited for; if it stays away, the frames are
/// here all the same, and nothing is told of who made them.
async fn final_report(context: &Context, client: &Client, id: JobId) -> Outcome<Option<JobReport>> {
    let mut backoff = Backoff::new(Duration::from_millis(200), LONGEST_WAIT);
    let begun = Instant::now();
    loop {
        match client.report(id).await {
            Ok(report) => return Ok(Some(report)),
            Err(error) if error.is_transient() && begun.elapsed() < PATIENCE => {
                tokio::time::sleep(backoff.failed()).await;
            }
            Err(error) if error.is_transient() => {
                context
                    .output
                    .warning(&format!("job {id} has ended, and its report is not to be had: {error}"));
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Of frames that took the place of others.
fn replaced_line(replaced: u32) -> Option<String> {
    (replaced > 0)
        .then(|| format!("{} took the place of earlier ones of this .blend", count(replaced, "frame")))
}

/// Where a job's frames go, and how.
struct Landing {
    out: PathBuf,
    blend: String,
    existing: Existing,
    marker: Option<Marker>,
}

fn landing(settings: &Settings, client: &Client, job: &JobView, args: &FetchArgs) -> Landing {
    let marker = Marker::load(&settings.data.value, client.url(), job);
    let remembered = marker.as_ref().map(|marker| marker.out.clone());
    let out = args.out.clone().or(remembered).unwrap_or_else(|| PathBuf::from("."));
    let blend =
        marker.as_ref().map_or_else(|| job.spec.session.own_stem().to_owned(), |marker| marker.blend.clone());
    let existing = args.existing.or(marker.as_ref().map(|marker| marker.existing)).unwrap_or_default();
    Landing { out, blend, existing, marker }
}

/// The output folder, ready to be written.
pub async fn open_folder(out: PathBuf) -> Outcome<OutFolder> {
    let shown = text::path(&out);
    let fail = |why: String| {
        Fault::bad_input(format!(
            "frames cannot be written into {shown} ({why}); choose another folder with --out"
        ))
    };
    tokio::task::spawn_blocking(move || OutFolder::prepare(&out))
        .await
        .map_err(|error| fail(error.to_string()))?
        .map_err(|error| fail(error.to_string()))
}

/// What Kiln wrote into the folder earlier.
pub fn manifest(folder: &OutFolder, blend: &str) -> Outcome<Manifest> {
    Manifest::load(folder, blend).map_err(|error| {
        Fault::bad_input(format!(
            "{} cannot be read ({error}); check its permissions, or choose another folder with --out",
            folder.path().join(".kiln").display()
        ))
    })
}

pub async fn wait(context: &Context, args: FetchArgs) -> Outcome<Exit> {
    let settings = context.settings(&args.job.farm)?;
    let mut signals = Signals::new().map_err(|error| Fault::failed(error.to_string()))?;
    let client = farm::need(&settings)?;
    let job = client.job(args.job.id).await?;
    let landing = landing(&settings, &client, &job, &args);
    let fetches = landing.marker.is_some() || args.out.is_some();
    let fetcher = if fetches { Some(open(&client, &job, &landing).await?) } else { None };
    finish(context, &settings, &client, job, landing, fetcher, &mut signals).await
}

pub async fn fetch(context: &Context, args: FetchArgs) -> Outcome<Exit> {
    let settings = context.settings(&args.job.farm)?;
    let client = farm::need(&settings)?;
    let job = client.job(args.job.id).await?;
    let landing = landing(&settings, &client, &job, &args);
    let mut fetcher = open(&client, &job, &landing).await?;
    let (mut came, mut there, mut replaced) = (0_u32, 0_u32, 0_u32);
    let (mut left, mut missing) = (Vec::new(), Vec::new());
    let mut suspicious = Vec::new();
    let output = context.output;
    fetcher
        .sweep(|landed| {
            match landed.how {
                How::Written | How::Replaced => {
                    came += 1;
                    replaced += u32::from(landed.how == How::Replaced);
                    output.note(&format!("frame {}", landed.frame));
                }
                How::AlreadyThere => there += 1,
                How::Left(paths) => return left.extend(paths),
                How::Gone => return missing.push(landed.frame),
            }
            suspicious.push((landed.frame, landed.suspicious));
        })
        .await?;
    let out = fetcher.folder().path().to_owned();
    fetcher.finish().await;
    if let Some(first) = missing.first() {
        output.warning(&gone(job.id, *first).message);
    }
    if let Some(first) = left.first() {
        output.warning(&format!(
            "{} left as they were, {first} among them; --existing overwrite replaces them",
            count(left.len() as u64, "file")
        ));
    }
    let exit = if left.is_empty() && missing.is_empty() { Exit::Done } else { Exit::Failed };
    if job.state.is_end()
        && left.is_empty()
        && let Some(marker) = &landing.marker
        && args.out.is_none()
    {
        marker.forget(&settings.data.value);
    }
    let suspicious = SuspiciousFrames::collect(suspicious);
    let value = json!({
        "job": job.id, "state": job.state, "out": shown(Some(&out)), "fetched": came, "there": there, "replaced": replaced,
        "left": left, "gone": missing, "suspicious": suspicious, "exit_code": exit as i32,
    });
    output.result(&value, || {
        let more = if job.state.is_end() { String::new() } else { format!("; the job is {}", job.state) };
        let came_here = count(came, "frame");
        let mut lines =
            vec![format!("{came_here} fetched, {there} there already, in {}{more}", text::path(&out))];
        lines.extend(replaced_line(replaced));
        lines.extend(summary(&suspicious, came + there));
        lines.join("\n")
    });
    Ok(exit)
}

async fn open(client: &Client, job: &JobView, landing: &Landing) -> Outcome<Fetcher> {
    let folder = Arc::new(open_folder(landing.out.clone()).await?);
    let manifest = manifest(&folder, &landing.blend)?;
    // A job that skips has left out what is there already; whatever came since is in the way all the same.
    let is_of_here = landing.marker.is_some();
    Ok(Fetcher::new(client.clone(), job, is_of_here, landing.existing, folder, manifest))
}

async fn finish(
    context: &Context,
    settings: &Settings,
    client: &Client,
    job: JobView,
    landing: Landing,
    fetcher: Option<Fetcher>,
    signals: &mut Signals,
) -> Outcome<Exit> {
    let out = fetcher.as_ref().map(|fetcher| fetcher.folder().path().to_owned());
    let stay = follow(context.output, client, job, fetcher, Whose::Farm, signals).await?;
    if let Some(marker) = &landing.marker
        && stay.exit() == Exit::Done
    {
        marker.forget(&settings.data.value);
    }
    Ending { stay, out: out.as_deref(), before: None, notices: &[] }.tell(context, client).await
}
