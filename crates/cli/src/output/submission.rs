//! Events of a submission in words.

use std::path::Path;

use kiln_blend::with_verb;
use kiln_client::{
    Existing, PrepareError,
    submission::{
        JobDifference, OtherFrames, OtherJob, QuestionTopic, RenderInputs, RenderPlan, SubmissionEvent,
    },
};
use kiln_types::{JobId, JobState, RelPath};

use super::{
    Output,
    blend::{print_missing, summary},
    device,
    text::{count, moment, path},
};
use crate::{exit::CommandError, size::ByteSize};

/// Prints lines about one variant, or about a submission without variants.
#[derive(Debug, Clone, Copy)]
pub struct Voice<'a> {
    output: Output,
    variant: Option<&'a str>,
}

impl<'a> Voice<'a> {
    pub fn of(output: Output, variant: Option<&'a str>) -> Self {
        Self { output, variant }
    }

    pub fn note(self, text: &str) {
        self.output.note(&self.line(text));
    }

    pub fn warning(self, text: &str) {
        self.output.warning(&self.line(text));
    }

    /// Prints an error that does not end the command.
    pub fn error_line(self, text: &str) {
        self.output.error_line(&CommandError::failed(self.line(text)));
    }

    fn line(self, text: &str) -> String {
        self.variant.map_or_else(|| text.to_owned(), |variant| format!("{variant}: {text}"))
    }
}

/// Prints an event that happens before a job is followed.
pub fn print_event(output: Voice<'_>, event: &SubmissionEvent) {
    match event {
        SubmissionEvent::Missing { files } if files.len() > PrepareError::NAMED => {
            let named: Vec<(&Path, &str)> =
                files.iter().map(|one| (&*one.named_by, one.file.as_str())).collect();
            print_missing(output.output, &named);
        }
        SubmissionEvent::Notice { text } => output.note(text),
        SubmissionEvent::Device { device, reason } => output.note(&device::chosen(*device, reason)),
        SubmissionEvent::EarlierFetched { job, frames } => {
            let frames = count(*frames, "frame");
            output.note(&format!("{frames} of job {job} were still on the farm, and are fetched"));
        }
        SubmissionEvent::OtherJob(other) => {
            output.note(&format!("{}; `kiln jobs cancel {}` ends it", other_job(other), other.job));
        }
        SubmissionEvent::OtherJobCancelled { job } => output.note(&format!("job {job} is cancelled")),
        SubmissionEvent::Inputs(inputs) => print_inputs(output, inputs),
        SubmissionEvent::Planned(planned) => print_planned(output, planned),
        SubmissionEvent::AlreadyRendering { job, created_ms, state, frames, others, other_frames } => {
            let made = moment(*created_ms);
            output.note(&already(*job, &made, *state, *frames, (*others, *other_frames)));
        }
        SubmissionEvent::Unbaked { simulations, bakes: true } => {
            output.note(&format!("{} not baked: a bake is done first", with_verb(simulations)));
        }
        SubmissionEvent::Unbaked { simulations, bakes: false } => {
            output.warning(&format!("{} not baked, and will not move", with_verb(simulations)));
        }
        SubmissionEvent::NotRemembered { data, reason } => output.warning(&format!(
            "the folder of the frames could not be saved in {} ({reason}); `kiln jobs fetch` will need --out",
            data.display()
        )),
        SubmissionEvent::NoReport { reason } => {
            output.warning(&format!("the job has ended, but its report cannot be read: {reason}"));
        }
        // The progress of a job prints its own events; commands print how it ends.
        _ => {}
    }
}

/// Returns the text of a question.
pub fn question(topic: &QuestionTopic) -> String {
    match topic {
        QuestionTopic::ReplaceFrames { files, out, blend, changes } => format!(
            "{} in {} were made from {blend} with other settings ({}). Replace them? [y/N] ",
            count(*files as u64, "file"),
            path(out),
            changes.join("; ")
        ),
        QuestionTopic::CancelOtherJob(other) => format!("{}. Cancel it? [y/N] ", other_job(other)),
    }
}

fn other_job(OtherJob { job, created_ms, differs_in, blend, out }: &OtherJob) -> String {
    let (out, made) = (path(out), moment(*created_ms));
    match differs_in {
        JobDifference::Settings => {
            format!("job {job} still renders {blend} with other settings into {out} (made {made})")
        }
        JobDifference::Save => {
            format!("job {job} still renders an earlier save of {blend} into {out} (made {made})")
        }
    }
}

fn already(
    job: JobId,
    made: &str,
    state: JobState,
    frames: u32,
    (others, other_frames): (OtherFrames, u32),
) -> String {
    let frames = count(frames, "frame");
    match others {
        OtherFrames::None => {
            let paused = match state {
                JobState::Paused => format!("; it is paused, and `kiln jobs resume {job}` continues it"),
                _ => String::new(),
            };
            format!("job {job}, made {made}, renders this already{paused}")
        }
        OtherFrames::Submitted => {
            format!("job {job}, made {made}, renders {frames} of these already")
        }
        OtherFrames::Added => {
            let more = count(other_frames, "more frame");
            format!("job {job}, made {made}, renders {frames} of these already; {more} are added to it")
        }
    }
}

fn print_inputs(output: Voice<'_>, inputs: &RenderInputs) {
    for line in summary(inputs) {
        output.note(&line);
    }
}

/// Prints what happens to files that are in the output folder.
fn print_planned(output: Voice<'_>, planned: &RenderPlan) {
    let RenderPlan { existing, kept, skipped, replaced, older, broken, first_broken, .. } = planned;
    if *replaced > 0 {
        let what = if *existing == Existing::Replace {
            "an earlier save or of other settings"
        } else {
            "an earlier save"
        };
        output.note(&format!("{} of {what} will be replaced", count(*replaced, "frame")));
    }
    if *older > 0 {
        let frames = count(*older, "frame");
        output.note(&format!("{frames} of an earlier save, outside the frames asked for, will stay"));
    }
    if *kept > 0 {
        let frames = count(*kept, "frame");
        output.note(&format!("{frames} of this scene and these settings are there already"));
    }
    if *skipped > 0 {
        output.note(&format!("{} skipped: files of their names are there", count(*skipped, "frame")));
    }
    if *broken > 0 {
        output.warning(&format!(
            "{} among them empty or cut off ({}) and not made by Kiln; --existing overwrite replaces them",
            count(*broken as u64, "file"),
            first_of(first_broken, *broken)
        ));
    }
}

/// Names the first of `count` paths: `a.png, b.png, …`.
fn first_of(first: &[RelPath], count: usize) -> String {
    let names: Vec<String> = first.iter().map(ToString::to_string).collect();
    format!("{}{}", names.join(", "), if count > first.len() { ", …" } else { "" })
}

/// The lines that print the progress of a large upload, one for each tenth.
#[derive(Debug, Default)]
pub struct UploadLines {
    printed: u64,
}

/// The bytes above which an upload prints its progress.
const LARGE_UPLOAD: u64 = 64 << 20;

impl UploadLines {
    pub fn line(&mut self, done: u64, total: u64, there: u64) -> Option<String> {
        if total <= LARGE_UPLOAD || (done != total && done < self.printed + total / 10) {
            return None;
        }
        self.printed = done;
        let there =
            if there > 0 { format!("; {} were there already", ByteSize(there)) } else { String::new() };
        Some(format!("sent {} of {}{there}", ByteSize(done), ByteSize(total)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_renders_the_same_is_named_with_what_becomes_of_the_rest() {
        let text = |state, others| already(JobId(7), "now", state, 3, others);
        assert_eq!(text(JobState::Running, (OtherFrames::None, 0)), "job 7, made now, renders this already");
        assert!(
            text(JobState::Paused, (OtherFrames::None, 0)).ends_with("`kiln jobs resume 7` continues it")
        );
        let added = text(JobState::Running, (OtherFrames::Added, 2));
        assert_eq!(
            added,
            "job 7, made now, renders 3 frames of these already; 2 more frames are added to it"
        );
        let apart = text(JobState::Running, (OtherFrames::Submitted, 2));
        assert_eq!(apart, "job 7, made now, renders 3 frames of these already");
    }

    #[test]
    fn an_upload_is_told_by_tenths_and_a_small_one_not_at_all() {
        let total = 100 << 20;
        let mut lines = UploadLines::default();
        assert_eq!(lines.line(0, total, 0), None);
        assert!(lines.line(total / 10, total, 0).is_some());
        assert_eq!(lines.line(total / 10 + 1, total, 0), None);
        assert!(lines.line(total, total, 1 << 20).is_some_and(|line| line.contains("were there already")));
        assert_eq!(UploadLines::default().line(1 << 20, 1 << 20, 0), None);
    }
}
