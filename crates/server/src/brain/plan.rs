//! From a job's spec to what the core needs of it: steps, and the labels that a worker must have.

use kiln_core::{JobPlan, Label, PlanError, Requirement, StepPlan};
use kiln_types::{BlenderSeries, BlobHash, DeviceClass, JobId, JobSpec, SessionKey, StepIndex, StepKind};

/// The steps of a job: its frames, a task each, and before them the bake where there is one.
pub(crate) fn plan_of(job: JobId, spec: &JobSpec) -> Result<JobPlan, PlanError> {
    let steps = (0..).zip(spec.steps()).map(|(index, kind): (u16, _)| StepPlan {
        after: index.checked_sub(1).map(StepIndex).into_iter().collect(),
        order: spec.order,
        requires: requirement(spec),
        ..StepPlan::new(spec.tasks_of(*kind), session_key(job, spec, *kind))
    });
    JobPlan::new(job, steps.collect())
}

/// What a slot has open, as far as the core compares it: the copy in which a bake works serves nothing else, and
/// what it makes is one job's alone.
fn session_key(job: JobId, spec: &JobSpec, kind: StepKind) -> SessionKey {
    let own = spec.session.key();
    let named = |name: String| SessionKey(BlobHash::of(name.as_bytes()));
    match kind {
        StepKind::Bake => named(format!("bake of {}", own.0)),
        StepKind::Render if spec.bake.is_empty() => own,
        StepKind::Render => named(format!("{} as job {job} baked it", own.0)),
    }
}

/// What a worker must have, in words that a person reads where it is missing. Devices and engines belong to one
/// Blender: a worker may have CUDA in one and not in the other.
pub(super) fn requirement(spec: &JobSpec) -> Requirement {
    let session = &spec.session;
    let series = session.blender;
    let mut labels = vec![Label(format!("Blender {series}"))];
    // The processor is everywhere.
    if session.device != DeviceClass::Cpu {
        labels.push(device_label(series, session.device));
    }
    // The engine that stands in the file is left to Blender, which renames old ones when it opens a file.
    if let Some(engine) = &session.settings.engine {
        labels.push(engine_label(series, engine));
    }
    labels.extend(spec.shared.iter().map(|name| shared_label(name)));
    labels.into_iter().collect()
}

pub(super) fn shared_label(name: &str) -> Label {
    Label(format!("the shared folder {name}"))
}

pub(super) fn tag_label(tag: &str) -> Label {
    Label(format!("the tag {tag}"))
}

pub(super) fn device_label(series: BlenderSeries, device: DeviceClass) -> Label {
    Label(match device {
        DeviceClass::Cpu => format!("a processor for Blender {series}"),
        gpu => format!("a {gpu} device for Blender {series}"),
    })
}

pub(super) fn engine_label(series: BlenderSeries, engine: &str) -> Label {
    Label(format!("the engine {engine} in Blender {series}"))
}
