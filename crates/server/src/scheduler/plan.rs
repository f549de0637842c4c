//! The plan of a job for the core: its steps, and the labels that a worker must have. Labels are keys for comparison only;
//! [`labels`] has the meaning of each.

use std::{collections::BTreeSet, num::NonZeroU32};

use kiln_api::UnmetRequirement;
use kiln_core::{
    DeviceOption, Gpus, JobPlan, Label, Moment, OpenDevice, PlanError, Requirement, Room, SchedulingOptions,
    StepPlan,
};
use kiln_types::{
    BlenderSeries, BlobHash, DeviceClass, GpuUse, JobId, JobRequirements, JobSpec, JobSteps, SessionKey,
    StepInput, StepSpec, TaskIndex,
};

use crate::clock::{Clock, unix_ms};

/// Returns the plan of a job.
pub(crate) fn plan_of(
    job: JobId,
    spec: &JobSpec,
    steps: &JobSteps,
    scheduling: SchedulingOptions,
) -> Result<JobPlan, PlanError> {
    let steps = steps.iter().map(|(_, step)| step_plan(job, spec, step));
    let mut plan = JobPlan::new(job, steps.collect())?.scheduled(scheduling);
    if let Some(hold) = &spec.hold {
        let positions = hold.iter().filter_map(|frame| spec.frames.index_of(frame));
        plan = plan.held_after(positions.map(TaskIndex).collect())?;
    }
    let pinned = spec.any_gpu && spec.session.device != DeviceClass::Gpu;
    Ok(if pinned { plan.pinned(&device_label(spec.session.blender, spec.session.device)) } else { plan })
}

/// Returns the plan of a step, before the device of its job is chosen.
pub(super) fn step_plan(job: JobId, spec: &JobSpec, step: &StepSpec) -> StepPlan {
    let open = spec.any_gpu.then(|| spec.on(DeviceClass::Gpu));
    let first = open.as_ref().unwrap_or(spec);
    StepPlan {
        per_frame: step.space.per_frame().map(NonZeroU32::from),
        after: step.after.clone(),
        order: step.order,
        requires: requirement(first, step),
        measures_speed: step.renders,
        hang_ms: spec.hang_s.map(|seconds| u64::from(seconds) * 1000),
        device: open.as_ref().and_then(|open| open_device(job, open, step)),
        ..StepPlan::new(step.tasks(&spec.frames), session_key(job, first, step))
    }
}

/// Returns the backends on which a step of a job for any GPU may render; `None` if the step has no Blender.
fn open_device(job: JobId, spec: &JobSpec, step: &StepSpec) -> Option<OpenDevice> {
    let series = spec.session.blender;
    let option = |backend| {
        let session = session_key(job, &spec.on(backend), step)?;
        Some(DeviceOption { label: device_label(series, backend), session })
    };
    Some(OpenDevice {
        any: device_label(series, DeviceClass::Gpu),
        session: session_key(job, spec, step)?,
        options: DeviceClass::BACKENDS.into_iter().filter_map(option).collect(),
    })
}

/// Returns the backend that has this label.
pub(super) fn backend_of(series: BlenderSeries, label: &Label) -> Option<DeviceClass> {
    DeviceClass::BACKENDS.into_iter().find(|backend| device_label(series, *backend) == *label)
}

/// Returns the scheduling options of a job, without the dependencies that are `completed`.
pub(crate) fn scheduling_of(spec: &JobSpec, clock: &Clock, completed: &BTreeSet<JobId>) -> SchedulingOptions {
    let scheduling = &spec.scheduling;
    SchedulingOptions {
        priority: scheduling.priority.get(),
        project: spec.project.to_string(),
        user: spec.owner.to_string(),
        max_workers: scheduling.max_workers.map(std::num::NonZeroU32::get),
        after: scheduling.after.difference(completed).copied().collect(),
        not_before: scheduling.not_before_ms.map(|at_ms| moment(clock, at_ms)),
    }
}

/// Returns the moment of a wall-clock time; now if it has passed.
fn moment(clock: &Clock, at_ms: i64) -> Moment {
    clock.now().after(u64::try_from(at_ms.saturating_sub(unix_ms())).unwrap_or(0))
}

/// Returns the key by which the core compares sessions: no other step may use a copy that a step writes into, and no other
/// job the bundle that a step makes.
fn session_key(job: JobId, spec: &JobSpec, step: &StepSpec) -> Option<SessionKey> {
    let own = spec.session.key();
    let named = |name: String| SessionKey(BlobHash::of(name.as_bytes()));
    match step.opens {
        StepInput::Job => Some(own),
        StepInput::Copy => Some(named(format!("{} of {}", step.kind, own.0))),
        StepInput::None => None,
        StepInput::Step(made) => Some(named(format!("{} as step {made} of job {job} made it", own.0))),
    }
}

/// Returns the labels that a worker must have for the step, each with its part of the requirement.
pub(super) fn labels(spec: &JobSpec, step: &StepSpec) -> Vec<(Label, UnmetRequirement)> {
    let mut labels = if step.opens == StepInput::None { Vec::new() } else { blender_labels(spec, step) };
    let JobRequirements { tags, pool, .. } = &spec.requirements;
    let tags = tags.iter().map(ToString::to_string);
    labels.extend(tags.map(|name| (tag_label(&name), UnmetRequirement::Tag { name })));
    let pool = pool.iter().map(ToString::to_string);
    labels.extend(pool.map(|name| (pool_label(&name), UnmetRequirement::Pool { name })));
    labels
}

/// Returns the labels of a step that opens the .blend. Devices and engines belong to one Blender: a worker may have CUDA in
/// one and not in the other.
fn blender_labels(spec: &JobSpec, step: &StepSpec) -> Vec<(Label, UnmetRequirement)> {
    let session = &spec.session;
    let (series, device) = (session.blender, session.device);
    let mut labels = vec![(blender_label(series), UnmetRequirement::Blender { series })];
    // Every worker has a processor.
    if device != DeviceClass::Cpu {
        labels.push((device_label(series, device), UnmetRequirement::Device { series, device }));
    }
    // The engine of the file is left to Blender, which renames old ones when it opens a file.
    if let Some(engine) = session.settings.engine.clone() {
        labels.push((engine_label(series, &engine), UnmetRequirement::Engine { series, engine }));
    }
    let denoiser = spec.denoiser.iter().filter(|_| step.renders).cloned();
    labels.extend(denoiser.map(|denoiser| {
        (denoiser_label(series, &denoiser), UnmetRequirement::Denoiser { series, denoiser })
    }));
    let shared = spec.shared.iter().cloned();
    labels.extend(shared.map(|name| (shared_label(&name), UnmetRequirement::SharedFolder { name })));
    labels
}

fn requirement(spec: &JobSpec, step: &StepSpec) -> Requirement {
    let requirements = &spec.requirements;
    let room = Room {
        cores: requirements.cores.map_or(0, std::num::NonZeroU32::get),
        memory: requirements.memory.unwrap_or(0),
        gpus: gpus(spec, step),
        whole: requirements.whole,
        ..Room::default()
    };
    let limits = requirements.limits.iter().map(|(name, count)| (name.to_string(), count.get())).collect();
    let labels = labels(spec, step).into_iter().map(|(label, _)| label).collect();
    Requirement { labels, room, limits }
}

fn gpus(spec: &JobSpec, step: &StepSpec) -> Gpus {
    if spec.session.device == DeviceClass::Cpu || !step.renders {
        return Gpus::None;
    }
    let memory = spec.requirements.gpu_memory.unwrap_or(0);
    match spec.requirements.gpus {
        GpuUse::Count(count) => Gpus::Some { count, memory },
        GpuUse::All => Gpus::All { memory },
    }
}

pub(super) fn pool_label(pool: &str) -> Label {
    Label(format!("pool {pool}"))
}

pub(super) fn shared_label(name: &str) -> Label {
    Label(format!("shared {name}"))
}

pub(super) fn tag_label(tag: &str) -> Label {
    Label(format!("tag {tag}"))
}

pub(super) fn blender_label(series: BlenderSeries) -> Label {
    Label(format!("blender {series}"))
}

pub(super) fn device_label(series: BlenderSeries, device: DeviceClass) -> Label {
    Label(format!("device {series} {device}"))
}

pub(super) fn denoiser_label(series: BlenderSeries, denoiser: &str) -> Label {
    Label(format!("denoiser {series} {denoiser}"))
}

pub(super) fn engine_label(series: BlenderSeries, engine: &str) -> Label {
    Label(format!("engine {series} {engine}"))
}

#[cfg(test)]
mod tests {
    use super::{super::tests::samples::spec, *};

    #[test]
    fn a_step_that_opens_nothing_needs_no_blender() {
        let mut spec = spec(3, "sequential", false);
        spec.session.device = DeviceClass::Cuda;
        spec.session.settings.engine = Some("LUXCORE".to_owned());
        spec.shared = vec!["textures".to_owned()];
        spec.requirements.tags = ["fast".parse().unwrap()].into();
        let steps = JobSteps::of_frames(false, spec.order);
        let render = steps.iter().next().unwrap().1.clone();
        let missing = |step: &StepSpec| -> Vec<String> {
            labels(&spec, step).into_iter().map(|(_, part)| part.to_string()).collect()
        };
        let all = ["Blender 3.4", "a cuda device for Blender 3.4", "the engine LUXCORE in Blender 3.4"];
        assert_eq!(missing(&render), [&all[..], &["the shared folder textures", "the tag fast"]].concat());
        let no_session = StepSpec { opens: StepInput::None, renders: false, ..render };
        assert_eq!(missing(&no_session), ["the tag fast"]);
    }
}
