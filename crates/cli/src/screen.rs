//! Shows what a submission reports, and asks what it asks: for people lines and questions, for programs lines of JSON.

use std::pin::pin;

use kiln_client::submission::{
    EventReceiver, EventSender, Question, SubmissionEvent, SubmissionMessage, VariantEvent,
};
use tokio::task::JoinHandle;

use crate::{
    ask,
    output::{
        Output,
        submission::{UploadLines, Voice, question, tell},
    },
};

/// The terminal of a submission.
pub struct Screen {
    pub output: Output,
    pub messages: EventReceiver,
    upload: UploadLines,
}

impl Screen {
    /// Returns a screen, and what a submission reports to it by.
    pub fn new(output: Output) -> (EventSender, Self) {
        let (sender, messages) = EventSender::channel();
        (sender, Self { output, messages, upload: UploadLines::default() })
    }

    /// Does the work, and shows meanwhile what it reports. While a question is open, nothing else is shown.
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
        // What was reported last.
        while let Ok(message) = self.messages.try_recv() {
            self.take(message);
        }
        done
    }

    /// Shows an event, or asks a question, whose end is returned.
    fn take(&mut self, message: SubmissionMessage) -> Option<JoinHandle<()>> {
        match message {
            SubmissionMessage::Event(event) => {
                self.show(&event);
                None
            }
            SubmissionMessage::Question(asked) => self.ask(asked),
        }
    }

    /// Shows an event of what comes before a job is followed.
    pub fn show(&mut self, told: &VariantEvent) {
        self.output.line(told);
        let VariantEvent { event, variant } = told;
        if let SubmissionEvent::Uploading { bytes_done, bytes, bytes_there } = event {
            if let Some(line) = self.upload.line(*bytes_done, *bytes, *bytes_there) {
                self.output.note(&line);
            }
        } else {
            tell(Voice::of(self.output, variant.as_deref()), event);
        }
    }

    /// Asks where somebody can be asked; else the question is dropped, which says so.
    fn ask(&self, asked: Question) -> Option<JoinHandle<()>> {
        self.output.can_ask().then(|| {
            let text = question(&asked.topic);
            tokio::spawn(async move { asked.answer(ask::yes(text).await) })
        })
    }
}

/// Waits for the end of a question.
async fn ended(answer: &mut Option<JoinHandle<()>>) {
    match answer {
        Some(answer) => {
            let _ = answer.await;
        }
        None => std::future::pending().await,
    }
}
