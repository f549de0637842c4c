//! The choice of a task for each slot. Inputs only mark what they changed; a turn ([`crate::Core::schedule`]) looks at the
//! marks.

pub(crate) mod devices;
pub(crate) mod dispatch;
pub(crate) mod eligibility;
pub(crate) mod fair_share;
pub(crate) mod indexes;
pub(crate) mod limits;
pub(crate) mod probes;
pub(crate) mod reindex;
pub(crate) mod releases;
pub(crate) mod requirements;
pub(crate) mod select;
pub(crate) mod speculation;
mod streaming;
pub(crate) mod turn;
