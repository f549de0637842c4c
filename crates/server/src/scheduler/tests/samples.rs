//! Jobs, workers and products for the random farms.

use kiln_api::Hello;
use kiln_core::{JobPlan, SchedulingOptions};
use kiln_store::NewBundle;
use kiln_types::{
    AttemptId, BlobHash, BundleId, DeviceClass, FileFormat, FrameSet, HeldAttempt, JobId, JobRequirements,
    JobScheduling, JobSpec, JobSteps, OutputFile, OutputRole, Owner, PixelReport, Policy, Project, RelPath,
    RenderSettings, SessionSpec, WorkerId,
};

use super::{super::*, bundle};

pub(super) fn delivered(frame: i32) -> MadeFiles {
    let file = OutputFile {
        path: RelPath::new(&format!("{frame:04}.png")).unwrap(),
        role: OutputRole::Main { view: None },
        hash: BlobHash::of(b"a picture"),
        size: 9,
        format: FileFormat::Png,
        width: 4,
        height: 4,
        pixels: PixelReport::default(),
    };
    MadeFiles::Files(vec![file.into()])
}

pub(super) fn plan(job: JobId, spec: &JobSpec) -> JobPlan {
    let steps = JobSteps::of_frames(!spec.bake.is_empty(), spec.order);
    plan::plan_of(job, spec, &steps, SchedulingOptions::default()).unwrap()
}

pub(super) fn made(made: MadeFiles) -> CheckedReport {
    CheckedReport::Done { made, seconds: 1.0, peak_memory: 1 }
}

/// No two bakes make the same.
pub(super) fn baked(job: JobId, attempt: AttemptId) -> NewBundle {
    NewBundle {
        id: BundleId(BlobHash::of(format!("job {job}, attempt {attempt}").as_bytes())),
        owner: Owner::default(),
        project: Project::default(),
        size: 1,
        blobs: vec![BlobHash::of(b"a cache")],
    }
}

pub(in crate::scheduler) fn spec(count: i32, order: &str, bakes: bool) -> JobSpec {
    JobSpec {
        name: "shot".to_owned(),
        owner: Owner::default(),
        project: Project::default(),
        frames: FrameSet::range(1, count, 1).unwrap(),
        order: order.parse().unwrap(),
        frame_time_limit_s: None,
        hang_s: None,
        any_gpu: false,
        refuse_black: false,
        denoiser: None,
        scheduling: JobScheduling::default(),
        requirements: JobRequirements::default(),
        written_by: "3.4.1".parse().unwrap(),
        bake: if bakes { vec!["cloth of Flag".to_owned()] } else { Vec::new() },
        shared: Vec::new(),
        hold: None,
        save: None,
        session: SessionSpec {
            bundle: bundle(count),
            blend: RelPath::new("shot.blend").unwrap(),
            origin: None,
            file_name: None,
            blender: "3.4".parse().unwrap(),
            device: DeviceClass::Cpu,
            settings: RenderSettings::default(),
            policy: Policy::default(),
            ocio: None,
            addons: Vec::new(),
        },
    }
}

/// Workers have GPUs of different makers, and one of them has none.
fn devices(id: WorkerId) -> Vec<kiln_api::DeviceOffer> {
    let backends: &[DeviceClass] = match id.bits() % 4 {
        0 => &[DeviceClass::Hip],
        1 => &[DeviceClass::Cuda, DeviceClass::Optix],
        2 => &[DeviceClass::Cuda],
        _ => &[],
    };
    let offer =
        |class: &DeviceClass| kiln_api::DeviceOffer { class: *class, name: "GPU".to_owned(), memory: None };
    backends.iter().map(offer).collect()
}

pub(in crate::scheduler) fn hello(id: WorkerId, held: Vec<HeldAttempt>) -> Hello {
    Hello {
        slots: 2,
        blenders: vec![kiln_api::BlenderOffer {
            version: "3.4.1".parse().unwrap(),
            build_hash: String::new(),
            flavor: kiln_types::BlenderFlavor::Executable,
            engines: Vec::new(),
            devices: devices(id),
            denoisers: Vec::new(),
        }],
        held,
        ..Hello::new(id, format!("worker {id}").parse().unwrap())
    }
}
