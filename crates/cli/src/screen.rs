//! Shows the events and the questions of a submission: lines for people, lines of JSON for programs.

use std::pin::pin;

use kiln_client::submission::{
    EventReceiver, EventSender, Question, SubmissionEvent, SubmissionMessage, VariantEvent,
};
use tokio::task::JoinHandle;

use crate::{
    ask,
    output::{
        Output,
        submission::{UploadLines, Voice, print_event, question},
    },
};

/// The terminal of a submission.
pub struct Screen {
    pub output: Output,
    pub messages: EventReceiver,
    upload: UploadLines,
}

impl Screen {
    /// Returns a screen, and the sender through which a submission reports to it.
    pub fn new(output: Output) -> (EventSender, Self) {
        let (sender, messages) = EventSender::channel();
        (sender, Self { output, messages, upload: UploadLines::default() })
    }

    /// Does the work, and shows its events meanwhile. While a question is open, nothing else is shown.
    pub async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let mut answer: Option<JoinHandle<()>> = None;
        let done = loop {
            tokio::select! {
                biased;
                () = ended(&mut answer), if answer.is_some() => answer = None,
                Some(message) = self.messages.recv(), if answer.is_none() => answer = self.take(message),
                done = &mut work => break done,
            }
        };
        while let Ok(message) = self.messages.try_recv() {
            self.take(message);
        }
        done
    }

    /// Shows an event, or asks a question and returns the task that waits for its answer.
    fn take(&mut self, message: SubmissionMessage) -> Option<JoinHandle<()>> {
        match message {
            SubmissionMessage::Event(event) => {
                self.show(&event);
                None
            }
            SubmissionMessage::Question(asked) => self.ask(asked),
        }
    }

    /// Shows an event that happens before a job is followed.
    pub fn show(&mut self, told: &VariantEvent) {
        self.output.line(told);
        let VariantEvent { event, variant } = told;
        if let SubmissionEvent::Uploading { bytes_done, bytes, bytes_there } = event {
            if let Some(line) = self.upload.line(*bytes_done, *bytes, *bytes_there) {
                self.output.note(&line);
            }
        } else {
            print_event(Voice::of(self.output, variant.as_deref()), event);
        }
    }

    /// Asks a question if a person can answer; otherwise it is dropped, which refuses it.
    fn ask(&self, asked: Question) -> Option<JoinHandle<()>> {
        self.output.can_ask().then(|| {
            let text = question(&asked.topic);
            tokio::spawn(async move { asked.answer(ask::yes(text).await) })
        })
    }
}

/// Waits for the answer to a question.
async fn ended(answer: &mut Option<JoinHandle<()>>) {
    match answer {
        Some(answer) => {
            let _ = answer.await;
        }
        None => std::future::pending().await,
    }
}
