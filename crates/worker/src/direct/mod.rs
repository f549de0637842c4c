//! Tasks without a Blender: they run on their slot as a part of the worker itself.

#[cfg(debug_assertions)]
mod test_step;
mod work;

use std::sync::Arc;

use kiln_api::{AssignedTask, StepWork};
use kiln_types::StepKind;

#[cfg(test)]
pub(crate) use work::DirectRoom;
pub(crate) use work::{DirectTask, DirectWork, run};

/// Returns the work of a task; `None` if its step needs a Blender.
#[cfg_attr(
    not(debug_assertions),
    expect(unused_variables, reason = "only the steps of tests have no Blender yet")
)]
pub(crate) fn work_of(step: &StepWork, task: &AssignedTask) -> Option<Arc<dyn DirectWork>> {
    match step.kind {
        StepKind::Bake | StepKind::Render => None,
        #[cfg(debug_assertions)]
        StepKind::Test => Some(Arc::new(test_step::TestStep::new(step, task))),
    }
}
