//! What leaves a slot's state machine, and what it asks of the machine around it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kiln_types::{BlenderSeries, Failure, SessionKey, SessionSpec};

use super::work::{Kind, Work};

/// What the actor has to do.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Start a process; where it brings something, with these files.
    Start(Kind, Option<SessionKey>),
    /// Bring a session's files here.
    Fetch(Arc<SessionSpec>),
    Open(Work),
    /// Do the task; a bake ends the process too.
    Work(Work),
    /// End the process; also in the middle of what it does.
    Recycle,
    /// The session's files are no longer wanted here.
    Release(SessionKey),
    /// Look again, with [`Slot::advance`], after this time.
    Wake(Duration),
    Tell(Told),
}

/// What the worker is told.
#[derive(Debug)]
pub(crate) enum Told {
    Began(Work),
    HandedBack(Work),
    Failed {
        work: Work,
        failure: Failure,
        seconds: f64,
    },
    /// The slot has ended for good.
    Closed,
}

/// What the slot must know of the machine around it.
pub(crate) trait Surroundings {
    fn now(&self) -> Instant;
    fn has(&self, series: BlenderSeries) -> bool;
    /// Whether memory allows to open this scene here.
    fn room(&self, work: &Work) -> bool;
    /// Whether rendered frames that wait for their upload leave room for another.
    fn outbox_open(&self) -> bool;
    /// Whether the process has done its share.
    fn worn(&self) -> bool;
}
