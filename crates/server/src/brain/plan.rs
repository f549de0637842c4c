//! From a job's spec to what the core needs of it: steps, and the labels that a worker must have.

use std::{collections::BTreeSet, num::NonZeroU32};

use kiln_core::{
    DeviceOption, Gpus, JobPlan, Label, Moment, OpenDevice, PlanError, Requirement, Room, SchedulingOptions,
    StepPlan,
};
use kiln_types::{
    BlenderSeries, BlobHash, DeviceClass, GpuUse, JobId, JobSpec, JobSteps, SessionKey, StepInput, StepSpec,
    TaskSpace,
};

use crate::clock::{Clock, unix_ms};

/// The job as the core needs it.
pub(crate) fn plan_of(
    job: JobId,
    spec: &JobSpec,
    steps: &JobSteps,
    standing: SchedulingOptions,
) -> Result<JobPlan, PlanError> {
    // As it is as long as no worker has taken it.
    let open = spec.any_gpu.then(|| spec.on(DeviceClass::Gpu));
    let first = open.as_ref().unwrap_or(spec);
    let steps = steps.iter().map(|(_, step)| StepPlan {
        per_frame: (step.space == TaskSpace::Frames).then_some(NonZeroU32::MIN),
        after: step.after.iter().copied().map(Into::into).collect(),
        order: step.order,
        requires: requirement(first, step),
        hang_ms: spec.hang_s.map(|seconds| u64::from(seconds) * 1000),
        device: open.as_ref().map(|open| open_device(job, open, step)),
        ..StepPlan::new(step.tasks(&spec.frames), session_key(job, first, step))
    });
    let plan = JobPlan::new(job, steps.collect())?.scheduled(standing);
    let pinned = spec.any_gpu && spec.session.device != DeviceClass::Gpu;
    Ok(if pinned { plan.pinned(&device_label(spec.session.blender, spec.session.device)) } else { plan })
}

/// The backends on which a step may render that asks for any GPU.
fn open_device(job: JobId, spec: &JobSpec, step: &StepSpec) -> OpenDevice {
    let series = spec.session.blender;
    let option = |backend| DeviceOption {
        label: device_label(series, backend),
        session: session_key(job, &spec.on(backend), step),
    };
    OpenDevice {
        any: device_label(series, DeviceClass::Gpu),
        session: session_key(job, spec, step),
        options: DeviceClass::BACKENDS.map(option).to_vec(),
    }
}

/// The backend of which this is the label.
pub(super) fn backend_of(series: BlenderSeries, label: &Label) -> Option<DeviceClass> {
    DeviceClass::BACKENDS.into_iter().find(|backend| device_label(series, *backend) == *label)
}

/// Where the job stands; `completed` are jobs that the core does not hold and that need not be waited for.
pub(crate) fn standing_of(spec: &JobSpec, clock: &Clock, completed: &BTreeSet<JobId>) -> SchedulingOptions {
    let standing = &spec.standing;
    SchedulingOptions {
        priority: standing.priority.get(),
        project: spec.project.0.clone(),
        user: spec.owner.0.clone(),
        max_workers: standing.max_workers.map(std::num::NonZeroU32::get),
        after: standing.after.difference(completed).copied().collect(),
        not_before: standing.not_before_ms.map(|at_ms| moment(clock, at_ms)),
    }
}

/// When it is this time by the wall's clock; now, where that has passed.
fn moment(clock: &Clock, at_ms: i64) -> Moment {
    clock.now().after(u64::try_from(at_ms.saturating_sub(unix_ms())).unwrap_or(0))
}

/// The session that a slot has open, as far as the core compares it: a copy that a step writes into serves no other, and
/// what a step makes is one job's alone.
fn session_key(job: JobId, spec: &JobSpec, step: &StepSpec) -> SessionKey {
    let own = spec.session.key();
    let named = |name: String| SessionKey(BlobHash::of(name.as_bytes()));
    match step.opens {
        StepInput::Job => own,
        StepInput::Copy => named(format!("{} of {}", step.kind, own.0)),
        StepInput::Step(made) => named(format!("{} as step {made} of job {job} made it", own.0)),
    }
}

/// What a worker must have, in words that a person reads where it is missing. Devices and engines belong to one
/// Blender: a worker may have CUDA in one and not in the other.
fn requirement(spec: &JobSpec, step: &StepSpec) -> Requirement {
    let (session, needs) = (&spec.session, &spec.needs);
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
    let denoiser = spec.denoiser.iter().filter(|_| step.renders);
    labels.extend(denoiser.map(|name| denoiser_label(series, name)));
    labels.extend(spec.shared.iter().map(|name| shared_label(name)));
    labels.extend(needs.tags.iter().map(|tag| tag_label(tag)));
    labels.extend(needs.pool.iter().map(|pool| pool_label(pool)));
    let room = Room {
        cores: needs.cores.map_or(0, std::num::NonZeroU32::get),
        memory: needs.memory.unwrap_or(0),
        gpus: gpus(spec, step),
        whole: needs.whole,
        ..Room::default()
    };
    let limits = needs.limits.iter().map(|(name, count)| (name.clone(), count.get())).collect();
    Requirement { labels: labels.into_iter().collect(), room, limits }
}

fn gpus(spec: &JobSpec, step: &StepSpec) -> Gpus {
    if spec.session.device == DeviceClass::Cpu || !step.renders {
        return Gpus::None;
    }
    let memory = spec.needs.gpu_memory.unwrap_or(0);
    match spec.needs.gpus {
        GpuUse::Count(count) => Gpus::Some { count, memory },
        GpuUse::All => Gpus::All { memory },
    }
}

pub(super) fn pool_label(pool: &str) -> Label {
    Label(format!("a place in the pool {pool}"))
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
        DeviceClass::Gpu => format!("a GPU for Blender {series}"),
        gpu => format!("a {gpu} device for Blender {series}"),
    })
}

pub(super) fn denoiser_label(series: BlenderSeries, denoiser: &str) -> Label {
    let name = match denoiser {
        "OPENIMAGEDENOISE" => "OpenImageDenoise",
        "OPTIX" => "OptiX",
        other => other,
    };
    Label(format!("the denoiser {name} in Blender {series}"))
}

pub(super) fn engine_label(series: BlenderSeries, engine: &str) -> Label {
    Label(format!("the engine {engine} in Blender {series}"))
}
