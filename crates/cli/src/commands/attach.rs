//! `kiln jobs wait` and `kiln jobs fetch`, and the last lines of every command that follows a job.

use std::path::PathBuf;

use kiln_api::JobView;
use kiln_client::{
    Client, Existing, FetchResult,
    submission::{
        EventSender, FetchTarget, FetchTotals, FollowEnd, JobHome, JobOutcome, Marker, SubmissionError,
        SubmissionEvent, SubmissionMessage, SubmissionResult, SubmittedJob, VariantEvent, VariantResult,
        VariantRun, VariantsResult,
    },
};
use kiln_types::JobId;
use serde::Serialize;
use serde_json::Value;

use super::{Context, closing_table};
use crate::{
    args::FetchArgs,
    exit::{CommandError, Exit, Outcome},
    failed::explain,
    farm,
    follow::follow,
    output::{
        Output, OutputMode,
        submission::Voice,
        suspicious::summary as suspicious_lines,
        table::table,
        text::{self, count},
    },
    screen::Screen,
    settings::Settings,
    signals::Signals,
};

/// Returns the last line of a command as JSON: its last event with the exit code.
fn last_line(event: &impl Serialize, exit: Exit) -> Value {
    // These types cannot fail to serialise.
    let mut value = serde_json::to_value(event).unwrap_or_default();
    if let Value::Object(fields) = &mut value {
        fields.insert("exit_code".to_owned(), (exit as i32).into());
    }
    value
}

/// Prints the end of a submission that found nothing to render.
fn print_nothing_left(output: Output, finished: SubmissionResult) -> Exit {
    let exit = Exit::from(finished.outcome);
    let SubmissionResult { kept, skipped, suspicious, out, .. } = &finished;
    let there = count(kept + skipped, "frame");
    let mut lines = vec![match out {
        Some(out) => format!("Nothing is left to render: {there} in {}", text::path(out)),
        None => format!("Nothing is left to render: {there}"),
    }];
    lines.extend(suspicious_lines(suspicious, kept + skipped));
    output.last_line(&last_line(&SubmissionEvent::Finished(Box::new(finished)), exit), || lines.join("\n"));
    exit
}

/// Prints the end of a job that was followed.
fn print_finished(output: Output, finished: SubmissionResult) -> Exit {
    let Some(job) = &finished.job else { return print_nothing_left(output, finished) };
    let (id, exit) = (job.id, Exit::from(finished.outcome));
    if finished.end == FollowEnd::Stopped {
        output.note("stopped; the frames that are done stay, and the same command continues");
    }
    if finished.end == FollowEnd::Held {
        output.note(&held_line("the job"));
    }
    if finished.end == FollowEnd::Detached {
        output.note(&format!(
            "job {id} continues; `kiln jobs wait {id}` attaches again, `kiln jobs fetch {id}` fetches its frames"
        ));
    }
    let voice = Voice::of(output, None);
    explain(voice, job, &finished.failed, &finished.log_tail);
    print_left(voice, id, &finished);
    let text = closing_text(output, &finished, job, exit);
    output.last_line(&last_line(&SubmissionEvent::Finished(Box::new(finished)), exit), || text);
    exit
}

fn held_line(job: &str) -> String {
    format!("{job} is held after its first frames; the same command without --hold-after renders the others")
}

/// Prints why frames of a job were not written here.
fn print_left(voice: Voice<'_>, id: JobId, finished: &SubmissionResult) {
    if let Some(error) = &finished.fetch_error {
        voice.error_line(error);
    }
    if !finished.left.is_empty() {
        voice.warning(&format!(
            "{} left as they were; `kiln jobs fetch {id} --existing overwrite` replaces them",
            count(finished.left.len() as u64, "file")
        ));
    }
}

fn closing_text(output: Output, finished: &SubmissionResult, job: &JobView, exit: Exit) -> String {
    let SubmissionResult { report, out, landed, kept, replaced, suspicious, .. } = finished;
    let mut text = report
        .as_ref()
        .filter(|report| {
            report.workers.iter().any(|w| w.frames + w.errors > 0) && output.reader() == OutputMode::Human
        })
        .map_or_else(String::new, |report| format!("{}\n", closing_table(report)));
    if let Some(out) = out
        && landed + kept > 0
    {
        text.push_str(&format!("{} in {}\n", count(landed + kept, "frame"), text::path(out)));
    }
    for line in
        replaced_line(*replaced).into_iter().chain(suspicious_lines(suspicious, job.tasks.total + kept))
    {
        text.push_str(&format!("{line}\n"));
    }
    if exit == Exit::Cancelled && finished.end == FollowEnd::Ended {
        text.push_str(&format!("Job {} was cancelled.\n", job.id));
    }
    text
}

/// Returns the line about frames that replaced others.
fn replaced_line(replaced: u32) -> Option<String> {
    (replaced > 0).then(|| format!("{} replaced earlier ones of this .blend", count(replaced, "frame")))
}

/// Follows the jobs of a submission until they end or the person detaches. Returns the results of all variants in order.
pub async fn follow_runs(
    screen: &mut Screen,
    runs: Vec<VariantRun>,
    home: JobHome,
    signals: &mut Signals,
) -> Outcome<Vec<VariantResult>> {
    let (mut jobs, mut ended) = (Vec::new(), Vec::new());
    for (at, run) in runs.into_iter().enumerate() {
        match run {
            VariantRun::Job(job) => jobs.push(*job),
            VariantRun::Ended(result) => ended.push((at, result)),
        }
    }
    let followed = follow(screen, jobs, home, signals).await?;
    let finishing = async {
        let mut results = Vec::new();
        for one in followed {
            results.push(one.finish().await);
        }
        results
    };
    let mut results = screen.during(finishing).await;
    for (at, result) in ended {
        results.insert(at.min(results.len()), result);
    }
    Ok(results)
}

/// Prints the ends of the variants of a submission. Fails if the only one could not be followed.
pub fn tell_results(output: Output, mut results: Vec<VariantResult>) -> Outcome<Exit> {
    if let [VariantResult { variant: None, .. }] = &results[..]
        && let Some(only) = results.pop()
    {
        return Ok(print_finished(output, *only.result?));
    }
    let all = VariantsResult::of(&results);
    let mut rows = Vec::new();
    for (VariantResult { variant, result }, summary) in results.into_iter().zip(&all.variants) {
        let voice = Voice::of(output, variant.as_deref());
        match result {
            Ok(finished) => {
                if let Some(job) = &finished.job {
                    explain(voice, job, &finished.failed, &finished.log_tail);
                    print_left(voice, job.id, &finished);
                }
                let frames = summary.frames;
                suspicious_lines(&finished.suspicious, frames).iter().for_each(|line| voice.note(line));
                let event = SubmissionEvent::Finished(finished);
                output.line(&last_line(&VariantEvent { event, variant }, Exit::from(summary.outcome)));
            }
            Err(error) => voice.warning(&CommandError::from(error).message),
        }
        rows.push(vec![
            summary.variant.to_string(),
            summary.job.map(|job| job.to_string()).unwrap_or_default(),
            summary.outcome.as_str().to_owned(),
            summary.frames.to_string(),
            summary.out.as_deref().map(text::path).unwrap_or_default(),
        ]);
    }
    if all.variants.iter().any(|one| one.outcome == JobOutcome::Held) {
        output.note(&held_line("a job"));
    }
    if all.outcome == JobOutcome::Detached {
        output.note(
            "the jobs continue; `kiln jobs wait JOB` attaches again, `kiln jobs fetch JOB` fetches its frames",
        );
    }
    let exit = Exit::from(all.outcome);
    let event = VariantEvent { event: SubmissionEvent::VariantsFinished(all), variant: None };
    output.last_line(&last_line(&event, exit), || {
        table(&["VARIANT", "JOB", "RESULT", ">FRAMES", "FOLDER"], rows)
    });
    Ok(exit)
}

/// The folder for a job's frames, and the treatment of files that are in it.
struct FrameFolder {
    out: PathBuf,
    blend: String,
    existing: Existing,
    marker: Option<Marker>,
}

fn frame_folder(settings: &Settings, client: &Client, job: &JobView, args: &FetchArgs) -> FrameFolder {
    let marker = Marker::load(&settings.data.value, client.url(), job);
    let remembered = marker.as_ref().map(|marker| marker.out.clone());
    let out = args.out.clone().or(remembered).unwrap_or_else(|| PathBuf::from("."));
    let blend =
        marker.as_ref().map_or_else(|| job.spec.session.own_stem().to_owned(), |marker| marker.blend.clone());
    let existing = args.existing.or(marker.as_ref().map(|marker| marker.existing)).unwrap_or_default();
    FrameFolder { out, blend, existing, marker }
}

impl FrameFolder {
    async fn open(&self) -> Result<FetchTarget, SubmissionError> {
        // A job with `skip` left out the files of its submission; files that came later are in the way all the same.
        let is_of_here = self.marker.is_some();
        FetchTarget::open(self.out.clone(), &self.blend, self.existing, is_of_here).await
    }
}

pub async fn wait(context: &Context, args: FetchArgs) -> Outcome<Exit> {
    let settings = context.settings(&args.job.farm)?;
    let mut signals = Signals::new().map_err(|error| CommandError::failed(error.to_string()))?;
    let client = farm::need(&settings)?;
    let job = client.job(args.job.id).await?;
    let folder = frame_folder(&settings, &client, &job, &args);
    let fetches = folder.marker.is_some() || args.out.is_some();
    let target = if fetches { Some(folder.open().await?) } else { None };
    let marker = folder.marker.map(|marker| (settings.data.value, marker));
    let (events, mut screen) = Screen::new(context.output);
    let job = SubmittedJob::attach(client, job, target, marker, events);
    let runs = vec![VariantRun::Job(Box::new(job))];
    let results = follow_runs(&mut screen, runs, JobHome::Farm, &mut signals).await?;
    tell_results(context.output, results)
}

pub async fn fetch(context: &Context, args: FetchArgs) -> Outcome<Exit> {
    let output = context.output;
    let settings = context.settings(&args.job.farm)?;
    let client = farm::need(&settings)?;
    let job = client.job(args.job.id).await?;
    let folder = frame_folder(&settings, &client, &job, &args);
    let target = folder.open().await?;
    // A job that is fetched to another folder is still to be fetched to its own.
    let marker = folder.marker.filter(|_| args.out.is_none());
    let marker = marker.map(|marker| (settings.data.value, marker));
    let (events, mut messages) = EventSender::channel();
    let job = SubmittedJob::attach(client, job, Some(target), marker, events);
    let fetching = job.fetch();
    let mut fetching = std::pin::pin!(fetching);
    let totals = loop {
        tokio::select! {
            biased;
            Some(message) = messages.recv() => print_fetched(output, message),
            totals = &mut fetching => break totals?,
        }
    };
    while let Ok(message) = messages.try_recv() {
        print_fetched(output, message);
    }
    let Some(totals) = totals else { return Ok(Exit::Done) };
    Ok(print_totals(output, totals))
}

/// Prints a frame that was fetched.
fn print_fetched(output: Output, message: SubmissionMessage) {
    let SubmissionMessage::Event(event) = message else { return };
    output.line(&event);
    if let SubmissionEvent::FrameFetched { frame, result, .. } = event.event
        && matches!(result, FetchResult::Written | FetchResult::Replaced)
    {
        output.note(&format!("frame {frame}"));
    }
}

fn print_totals(output: Output, totals: FetchTotals) -> Exit {
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
    lines.extend(suspicious_lines(suspicious, fetched + there));
    output.last_line(&last_line(&SubmissionEvent::Fetched(Box::new(totals)), exit), || lines.join("\n"));
    exit
}
