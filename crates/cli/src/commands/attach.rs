//! `kiln jobs wait` and `kiln jobs fetch`, and the end that every stay with a job has.

use std::path::PathBuf;

use kiln_api::JobView;
use kiln_client::{
    Client, Existing,
    submission::{
        EventSender, FetchResult, FetchTarget, FetchTotals, FollowEnd, JobHome, Marker, SubmissionError,
        SubmissionEvent, SubmissionMessage, SubmissionResult, SubmittedJob,
    },
};
use serde_json::Value;

use super::{Context, closing_table};
use crate::{
    args::FetchArgs,
    exit::{Exit, Fault, Outcome},
    failed::explain,
    farm,
    follow::follow,
    output::{
        Output, Reader,
        suspicious::summary,
        text::{self, count},
    },
    screen::Screen,
    settings::Settings,
    signals::Signals,
};

/// An event that ends a command, as its last line.
fn last_line(event: &SubmissionEvent, exit: Exit) -> Value {
    // Types of ours: they serialise.
    let mut value = serde_json::to_value(event).unwrap_or_default();
    if let Value::Object(fields) = &mut value {
        fields.insert("exit_code".to_owned(), (exit as i32).into());
    }
    value
}

/// Tells how a submission ended that found nothing to render.
pub fn tell_nothing_left(output: Output, finished: SubmissionResult) -> Exit {
    let exit = Exit::from(finished.outcome);
    let SubmissionResult { kept, skipped, suspicious, out, .. } = &finished;
    let there = count(kept + skipped, "frame");
    let mut lines = vec![match out {
        Some(out) => format!("Nothing is left to render: {there} in {}", text::path(out)),
        None => format!("Nothing is left to render: {there}"),
    }];
    lines.extend(summary(suspicious, kept + skipped));
    output.last_line(&last_line(&SubmissionEvent::Finished(Box::new(finished)), exit), || lines.join("\n"));
    exit
}

/// Tells how a stay with a job ended.
pub fn tell_finished(output: Output, finished: SubmissionResult) -> Exit {
    let Some(job) = &finished.job else { return tell_nothing_left(output, finished) };
    let (id, exit) = (job.id, Exit::from(finished.outcome));
    if finished.end == FollowEnd::Stopped {
        output.note("stopped; the frames that are done stay, and the same command continues");
    }
    if finished.end == FollowEnd::Detached {
        output.note(&format!(
            "job {id} goes on; `kiln jobs wait {id}` attaches again, `kiln jobs fetch {id}` brings its frames"
        ));
    }
    explain(output, job, &finished.failed, &finished.log_tail);
    if let Some(error) = &finished.fetch_error {
        output.error_line(&Fault::failed(error));
    }
    if !finished.left.is_empty() {
        output.warning(&format!(
            "{} left as they were; `kiln jobs fetch {id} --existing overwrite` replaces them",
            count(finished.left.len() as u64, "file")
        ));
    }
    let text = closing_text(output, &finished, job, exit);
    output.last_line(&last_line(&SubmissionEvent::Finished(Box::new(finished)), exit), || text);
    exit
}

fn closing_text(output: Output, finished: &SubmissionResult, job: &JobView, exit: Exit) -> String {
    let SubmissionResult { report, out, landed, kept, replaced, suspicious, .. } = finished;
    let mut text = report
        .as_ref()
        .filter(|report| {
            report.workers.iter().any(|w| w.frames + w.errors > 0) && output.reader() == Reader::Human
        })
        .map_or_else(String::new, |report| format!("{}\n", closing_table(report)));
    if let Some(out) = out
        && landed + kept > 0
    {
        text.push_str(&format!("{} in {}\n", count(landed + kept, "frame"), text::path(out)));
    }
    for line in replaced_line(*replaced).into_iter().chain(summary(suspicious, job.tasks.total + kept)) {
        text.push_str(&format!("{line}\n"));
    }
    if exit == Exit::Cancelled && finished.end == FollowEnd::Ended {
        text.push_str(&format!("Job {} was cancelled.\n", job.id));
    }
    text
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

impl Landing {
    async fn open(&self) -> Result<FetchTarget, SubmissionError> {
        // A job that skips has left out what is there already; whatever came since is in the way all the same.
        let is_of_here = self.marker.is_some();
        FetchTarget::open(self.out.clone(), &self.blend, self.existing, is_of_here).await
    }
}

pub async fn wait(context: &Context, args: FetchArgs) -> Outcome<Exit> {
    let settings = context.settings(&args.job.farm)?;
    let mut signals = Signals::new().map_err(|error| Fault::failed(error.to_string()))?;
    let client = farm::need(&settings)?;
    let job = client.job(args.job.id).await?;
    let landing = landing(&settings, &client, &job, &args);
    let fetches = landing.marker.is_some() || args.out.is_some();
    let target = if fetches { Some(landing.open().await?) } else { None };
    let marker = landing.marker.map(|marker| (settings.data.value, marker));
    let (events, mut screen) = Screen::new(context.output);
    let job = SubmittedJob::attach(client, job, target, marker, events);
    let followed = follow(&mut screen, job, JobHome::Farm, &mut signals).await?;
    let finished = screen.during(followed.finish()).await?;
    Ok(tell_finished(context.output, finished))
}

pub async fn fetch(context: &Context, args: FetchArgs) -> Outcome<Exit> {
    let output = context.output;
    let settings = context.settings(&args.job.farm)?;
    let client = farm::need(&settings)?;
    let job = client.job(args.job.id).await?;
    let landing = landing(&settings, &client, &job, &args);
    let target = landing.open().await?;
    // What was fetched elsewhere is still to come to the folder that was named first.
    let marker = landing.marker.filter(|_| args.out.is_none());
    let marker = marker.map(|marker| (settings.data.value, marker));
    let (events, mut messages) = EventSender::channel();
    let job = SubmittedJob::attach(client, job, Some(target), marker, events);
    let fetching = job.fetch();
    let mut fetching = std::pin::pin!(fetching);
    let totals = loop {
        tokio::select! {
            biased;
            Some(message) = messages.recv() => tell_fetched(output, message),
            totals = &mut fetching => break totals?,
        }
    };
    while let Ok(message) = messages.try_recv() {
        tell_fetched(output, message);
    }
    let Some(totals) = totals else { return Ok(Exit::Done) };
    Ok(tell_totals(output, totals))
}

/// A frame that was fetched.
fn tell_fetched(output: Output, message: SubmissionMessage) {
    let SubmissionMessage::Event(event) = message else { return };
    output.line(&event);
    if let SubmissionEvent::FrameFetched { frame, result, .. } = event
        && matches!(result, FetchResult::Written | FetchResult::Replaced)
    {
        output.note(&format!("frame {frame}"));
    }
}

fn tell_totals(output: Output, totals: FetchTotals) -> Exit {
    let FetchTotals { job, state, out, fetched, there, replaced, left, gone, suspicious } = &totals;
    if let Some(frame) = gone.first() {
        output.warning(&SubmissionError::FrameGone { job: *job, frame: *frame }.to_string());
    }
    if let Some(first) = left.first() {
        output.warning(&format!(
            "{} left as they were, {first} among them; --existing overwrite replaces them",
            count(left.len() as u64, "file")
        ));
    }
    let exit = if totals.is_whole() { Exit::Done } else { Exit::Failed };
    let more = if state.is_end() { String::new() } else { format!("; the job is {state}") };
    let came_here = count(*fetched, "frame");
    let mut lines = vec![format!("{came_here} fetched, {there} there already, in {}{more}", text::path(out))];
    lines.extend(replaced_line(*replaced));
    lines.extend(summary(suspicious, fetched + there));
    output.last_line(&last_line(&SubmissionEvent::Fetched(Box::new(totals)), exit), || lines.join("\n"));
    exit
}
