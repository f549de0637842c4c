//! The channel from the stages of a submission to the program that shows them.

use std::{path::PathBuf, sync::Arc};

use tokio::sync::{mpsc, oneshot};

use super::event::{OtherJob, SubmissionEvent, VariantEvent};

/// A message of a stage. They arrive in order.
#[derive(Debug)]
pub enum SubmissionMessage {
    Event(VariantEvent),
    Question(Question),
}

/// A question that a stage waits for. If it is dropped, the stage continues without an answer.
#[derive(Debug)]
pub struct Question {
    pub topic: QuestionTopic,
    answer: oneshot::Sender<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuestionTopic {
    /// The replacement of frames of the same .blend with other settings.
    ReplaceFrames {
        files: usize,
        out: PathBuf,
        /// The name of the .blend, without its ending.
        blend: String,
        /// The differences, in words.
        changes: Vec<String>,
    },
    /// The cancellation of a job that renders something else into the folder.
    CancelOtherJob(OtherJob),
}

impl Question {
    pub fn answer(self, yes: bool) {
        // A stage that was dropped meanwhile needs no answer.
        let _ = self.answer.send(yes);
    }
}

/// The sending end of the channel, which stages report to.
#[derive(Debug, Clone)]
pub struct EventSender {
    messages: mpsc::UnboundedSender<SubmissionMessage>,
    /// The name of the variant that reports; `None` for the only one, and for all together.
    variant: Option<Arc<str>>,
}

/// The receiving end of the channel.
pub type EventReceiver = mpsc::UnboundedReceiver<SubmissionMessage>;

impl EventSender {
    pub fn channel() -> (Self, EventReceiver) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { messages: sender, variant: None }, receiver)
    }

    /// Returns a sender without a receiver.
    pub fn silent() -> Self {
        Self::channel().0
    }

    /// Returns the sender of one variant.
    pub(crate) fn of(&self, variant: Option<Arc<str>>) -> Self {
        Self { messages: self.messages.clone(), variant }
    }

    pub(crate) fn variant(&self) -> Option<&Arc<str>> {
        self.variant.as_ref()
    }

    /// Sends an event, without waiting for the receiver.
    pub(crate) fn tell(&self, event: SubmissionEvent) {
        let event = VariantEvent { event, variant: self.variant.clone() };
        let _ = self.messages.send(SubmissionMessage::Event(event));
    }

    /// Asks a question, and waits for the answer; `None` if nobody answers.
    pub(crate) async fn ask(&self, topic: QuestionTopic) -> Option<bool> {
        let (answer, answered) = oneshot::channel();
        self.messages.send(SubmissionMessage::Question(Question { topic, answer })).ok()?;
        answered.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic() -> QuestionTopic {
        QuestionTopic::ReplaceFrames {
            files: 2,
            out: PathBuf::from("/out"),
            blend: "shot".to_owned(),
            changes: vec!["samples: 8, now 16".to_owned()],
        }
    }

    #[tokio::test]
    async fn messages_keep_their_order_and_questions_get_their_answers() {
        let (sender, mut receiver) = EventSender::channel();
        let sender = sender.of(Some("Night".into()));
        let stage = async {
            sender.tell(SubmissionEvent::ServerBack);
            sender.ask(topic()).await
        };
        let person = async {
            let first = receiver.recv().await.unwrap();
            let SubmissionMessage::Event(first) = first else { panic!() };
            assert_eq!((first.event, first.variant.as_deref()), (SubmissionEvent::ServerBack, Some("Night")));
            let Some(SubmissionMessage::Question(question)) = receiver.recv().await else { panic!() };
            assert_eq!(question.topic, topic());
            question.answer(true);
        };
        assert_eq!(tokio::join!(stage, person).0, Some(true));
    }

    #[tokio::test]
    async fn a_question_that_is_dropped_or_heard_by_nobody_has_no_answer() {
        let (sender, mut receiver) = EventSender::channel();
        let person = async {
            drop(receiver.recv().await);
        };
        assert_eq!(tokio::join!(sender.ask(topic()), person).0, None);
        assert_eq!(EventSender::silent().ask(topic()).await, None);
    }
}
