//! The reasons for which a job waits: codes with parameters on the wire, and one sentence for each.

use std::fmt;

use kiln_types::{AccountKind, BlenderSeries, DeviceClass, GpuUse, JobId, count, duration::in_words};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A reason for which nothing more of a job starts now. It prints as a sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "code", rename_all = "kebab-case")]
pub enum WaitReason {
    /// The job is paused.
    Paused { job: JobId },
    /// The first frames of the job are rendered, and it is paused until a person resumes it.
    Held {
        job: JobId,
        /// The number of these frames.
        frames: u32,
    },
    /// The job waits for other jobs.
    Dependencies {
        /// Those that have not ended.
        open: Vec<JobId>,
        /// Those that ended without being completed.
        ended: Vec<JobId>,
    },
    /// The start time of the job has not come.
    StartTime {
        /// Unix milliseconds.
        at_ms: i64,
        /// Seconds until then.
        in_s: u64,
    },
    /// No worker is connected.
    NoWorker,
    /// No connected worker meets the requirement of the job.
    NoWorkerFits {
        /// The parts of the requirement that every worker lacks.
        missing: Vec<UnmetRequirement>,
        /// The name of the worker that lacks least.
        nearest: String,
        /// The parts that this worker lacks.
        nearest_missing: Vec<UnmetRequirement>,
        /// The job asks for a GPU of any backend, or did so before its first frame was dispatched.
        any_gpu: bool,
    },
    /// Workers that meet the requirement are connected, and none takes work; their numbers by state.
    NotWorking {
        paused: u32,
        draining: u32,
        /// Because of their schedule, user activity or load.
        unavailable: u32,
        quarantined: u32,
        /// Nothing has been heard of them for some time.
        silent: u32,
    },
    /// The workers that could take it returned such work or failed to begin it, and are asked again soon.
    Cooldown { workers: u32 },
    /// A limit of the farm is used up.
    Limit { name: String, total: u32, used: u32 },
    /// The job is on as many workers as it may be.
    WorkerCap { max_workers: u32 },
    /// The user or the project of the job holds as many slots as it may.
    AccountCap { kind: AccountKind, name: String, max_slots: u32 },
    /// All workers that could take it are busy.
    Busy {
        workers: u32,
        /// The jobs that hold most of their slots.
        holders: Vec<SlotHolder>,
        /// Other jobs that hold some.
        more: u32,
    },
    /// The task failed on every worker that has a free slot, and the others are busy.
    FailedHere {
        /// Names of workers that have a free slot.
        free: Vec<String>,
        /// Other workers with a free slot.
        more_free: u32,
        /// The number of busy workers.
        busy: u32,
        /// The jobs that hold most of the slots of these workers.
        holders: Vec<SlotHolder>,
        /// Other jobs that hold some.
        more: u32,
    },
    /// No machine has enough free cores, memory or GPUs for it.
    NoRoom {
        /// The name of the worker that is kept free for it.
        reserved: Option<String>,
    },
}

impl WaitReason {
    /// Jobs, or workers, that one reason names.
    pub const MAX_NAMED: usize = 3;
}

/// A part of the requirement of a job that a worker does not meet. It prints as a noun phrase.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(tag = "code", rename_all = "kebab-case")]
pub enum UnmetRequirement {
    Blender {
        series: BlenderSeries,
    },
    /// `gpu` for a GPU of any backend.
    Device {
        series: BlenderSeries,
        device: DeviceClass,
    },
    Engine {
        series: BlenderSeries,
        engine: String,
    },
    Denoiser {
        series: BlenderSeries,
        /// As Blender names it.
        denoiser: String,
    },
    SharedFolder {
        name: String,
    },
    Tag {
        name: String,
    },
    Pool {
        name: String,
    },
    Cores {
        cores: u32,
    },
    Memory {
        bytes: u64,
    },
    Gpus {
        gpus: GpuUse,
        /// Bytes that each has at least.
        memory: Option<u64>,
    },
}

/// A job that holds slots for which another waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SlotHolder {
    pub job: JobId,
    pub name: String,
    pub slots: u32,
    pub priority: RelativePriority,
}

/// A priority, compared with that of the job that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RelativePriority {
    Lower,
    Same,
    Higher,
}

impl UnmetRequirement {
    /// Removes what follows from other parts that are missing: a worker without the Blender has none of its engines, and
    /// one without the device has no GPUs.
    pub fn without_consequences(mut missing: Vec<Self>) -> Vec<Self> {
        let blenders: Vec<BlenderSeries> = missing.iter().filter_map(Self::blender).collect();
        let has_device = missing.iter().any(|part| matches!(part, Self::Device { .. }));
        missing.retain(|part| match part {
            Self::Device { series, .. } | Self::Engine { series, .. } | Self::Denoiser { series, .. } => {
                !blenders.contains(series)
            }
            Self::Gpus { .. } => blenders.is_empty() && !has_device,
            _ => true,
        });
        missing
    }

    fn blender(&self) -> Option<BlenderSeries> {
        if let Self::Blender { series } = self { Some(*series) } else { None }
    }
}

impl fmt::Display for UnmetRequirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blender { series } => write!(f, "Blender {series}"),
            Self::Device { series, device } => match device {
                DeviceClass::Cpu => write!(f, "a processor for Blender {series}"),
                DeviceClass::Gpu => write!(f, "a GPU for Blender {series}"),
                backend => {
                    let article = if backend.as_str().starts_with('o') { "an" } else { "a" };
                    write!(f, "{article} {backend} device for Blender {series}")
                }
            },
            Self::Engine { series, engine } => write!(f, "the engine {engine} in Blender {series}"),
            Self::Denoiser { series, denoiser } => {
                let name = match denoiser.as_str() {
                    "OPENIMAGEDENOISE" => "OpenImageDenoise",
                    "OPTIX" => "OptiX",
                    other => other,
                };
                write!(f, "the denoiser {name} in Blender {series}")
            }
            Self::SharedFolder { name } => write!(f, "the shared folder {name}"),
            Self::Tag { name } => write!(f, "the tag {name}"),
            Self::Pool { name } => write!(f, "a place in the pool {name}"),
            Self::Cores { cores } => f.write_str(&count(*cores, "core")),
            Self::Memory { bytes } => write!(f, "{} of memory", gibibytes(*bytes)),
            Self::Gpus { gpus, memory } => {
                let each = match gpus {
                    GpuUse::Count(count) if count.get() == 1 => {
                        f.write_str("a GPU")?;
                        ""
                    }
                    GpuUse::Count(count) => {
                        write!(f, "{count} GPUs")?;
                        " each"
                    }
                    GpuUse::All => {
                        f.write_str("GPUs")?;
                        " each"
                    }
                };
                memory.map_or(Ok(()), |bytes| write!(f, " with {} of memory{each}", gibibytes(bytes)))
            }
        }
    }
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Paused { job } => write!(f, "It is paused; `kiln jobs resume {job}` resumes it."),
            Self::Held { job, frames } => {
                let first = if *frames == 1 { "its first frame".to_owned() } else { format!("its first {frames} frames") };
                write!(f, "It is held after {first}; `kiln jobs resume {job}` renders the others.")
            }
            Self::Dependencies { open, ended } => dependencies(f, open, ended),
            Self::StartTime { in_s, .. } => write!(f, "It does not start for another {}.", in_words(*in_s as f64)),
            Self::NoWorker => f.write_str("No worker is connected."),
            Self::NoWorkerFits { missing, any_gpu, .. } if !missing.is_empty() => {
                write!(f, "No worker of the farm has {}.", list(missing, " or "))?;
                let device = missing.iter().find_map(|part| match part {
                    UnmetRequirement::Device { device, .. } => Some(*device),
                    _ => None,
                });
                device.filter(|_| *any_gpu).map_or(Ok(()), |device| device_advice(f, device))
            }
            Self::NoWorkerFits { nearest, nearest_missing, .. } => write!(
                f,
                "No worker of the farm has everything that this job needs; {nearest} comes nearest, and lacks {}.",
                list(nearest_missing, " and ")
            ),
            Self::NotWorking { paused, draining, unavailable, quarantined, silent } => {
                let parts = [
                    (*paused, "paused"),
                    (*draining, "draining"),
                    (*unavailable, "unavailable"),
                    (*quarantined, "quarantined (see `kiln workers`)"),
                    (*silent, "silent"),
                ];
                let parts = parts.iter().filter(|(number, _)| *number > 0);
                let parts: Vec<String> = parts.map(|(number, state)| format!("{number} {state}")).collect();
                write!(f, "No worker that could take it works now: {}.", parts.join(", "))
            }
            Self::Cooldown { .. } => f.write_str(
                "The workers that could take it returned it or failed to begin it; they are asked again within half \
                 a minute.",
            ),
            Self::Limit { name, total: 0, .. } => write!(
                f,
                "It needs the limit {name}, of which the farm has none; `kiln limits set {name} N` says how many \
                 there are."
            ),
            Self::Limit { name, total, used } => {
                write!(f, "All {total} of the limit {name} are in use ({used}).")
            }
            Self::WorkerCap { max_workers: 1 } => {
                f.write_str("It is on a worker already, and may not be on more than one.")
            }
            Self::WorkerCap { max_workers } => {
                write!(f, "It is on {max_workers} workers already, and may not be on more.")
            }
            Self::AccountCap { kind, name, max_slots: 1 } => {
                write!(f, "The {kind} {name} holds the slot that it may hold at once.")
            }
            Self::AccountCap { kind, name, max_slots } => {
                write!(f, "The {kind} {name} holds the {max_slots} slots that it may hold at once.")
            }
            Self::Busy { workers, holders, more } => {
                match workers {
                    1 => f.write_str("The one worker that can take it is busy")?,
                    workers => write!(f, "All {workers} workers that can take it are busy")?,
                }
                held_by(f, holders, *more)
            }
            Self::FailedHere { free, more_free, busy, holders, more } => {
                let more_free_text = (*more_free > 0).then(|| format!("{more_free} more"));
                let names: Vec<&str> =
                    free.iter().map(String::as_str).chain(more_free_text.as_deref()).collect();
                let are = if names.len() == 1 { "is" } else { "are" };
                write!(f, "It has failed on {}, which {are} free; ", names.join(", "))?;
                match busy {
                    1 => f.write_str("the one worker on which it has not failed is busy")?,
                    busy => write!(f, "the {busy} workers on which it has not failed are busy")?,
                }
                held_by(f, holders, *more)
            }
            Self::NoRoom { reserved: Some(worker) } => {
                write!(f, "It needs more of a machine than is free; {worker} is kept for it as others end.")
            }
            Self::NoRoom { reserved: None } => f.write_str(
                "It needs more of a machine than is free on any one; it takes the first that has room.",
            ),
        }
    }
}

fn dependencies(f: &mut fmt::Formatter<'_>, open: &[JobId], ended: &[JobId]) -> fmt::Result {
    let named =
        |jobs: &[JobId]| format!("{} {}", if jobs.len() == 1 { "job" } else { "jobs" }, list(jobs, ", "));
    if !open.is_empty() {
        write!(f, "It waits for {} to be completed.", named(open))?;
    }
    if !open.is_empty() && !ended.is_empty() {
        f.write_str(" ")?;
    }
    if !ended.is_empty() {
        let (all, them) = if ended.len() == 1 { ("", "it") } else { ("all ", "them") };
        let jobs = named(ended);
        write!(
            f,
            "It waits for {jobs}, which ended without {all}being completed: retry {them}, or release this job from \
             {them}."
        )?;
    }
    Ok(())
}

/// The way out for a job that asked for any GPU and lacks its device.
fn device_advice(f: &mut fmt::Formatter<'_>, device: DeviceClass) -> fmt::Result {
    match device {
        DeviceClass::Gpu => f.write_str(" The job takes the first that comes, whatever its backend")?,
        backend => write!(f, " The job began on {backend}, and all of it must come from one backend")?,
    }
    f.write_str("; with --device cpu it renders on processors: submit it so if no such worker will come.")
}

fn held_by(f: &mut fmt::Formatter<'_>, holders: &[SlotHolder], more: u32) -> fmt::Result {
    if holders.is_empty() {
        return f.write_str(" with this job.");
    }
    for (number, SlotHolder { job, name, slots, priority }) in holders.iter().enumerate() {
        let before = if number == 0 { ", with " } else { ", " };
        let rank = match priority {
            RelativePriority::Higher => ", of higher priority",
            RelativePriority::Lower => ", of lower priority (its frames end first)",
            RelativePriority::Same => "",
        };
        write!(f, "{before}job {job} ({name}; {}{rank})", count(*slots, "slot"))?;
    }
    if more > 0 {
        write!(f, " and {more} more")?;
    }
    f.write_str(".")
}

fn list(items: &[impl fmt::Display], between: &str) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(between)
}

fn gibibytes(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;

    const SERIES: BlenderSeries = BlenderSeries { major: 4, minor: 5 };

    fn holder(job: u64, slots: u32, priority: RelativePriority) -> SlotHolder {
        SlotHolder { job: JobId(job), name: "forest".to_owned(), slots, priority }
    }

    fn no_worker_fits(missing: Vec<UnmetRequirement>, any_gpu: bool) -> WaitReason {
        let nearest_missing = vec![
            UnmetRequirement::Memory { bytes: 24 << 30 },
            UnmetRequirement::Gpus {
                gpus: GpuUse::Count(NonZeroU16::new(2).unwrap()),
                memory: Some(8 << 30),
            },
        ];
        WaitReason::NoWorkerFits { missing, nearest: "oak".to_owned(), nearest_missing, any_gpu }
    }

    fn reasons() -> Vec<(WaitReason, &'static str)> {
        use RelativePriority::{Higher, Lower, Same};
        let name = || "nuke".to_owned();
        let device = |device| UnmetRequirement::Device { series: SERIES, device };
        vec![
            (WaitReason::Paused { job: JobId(7) }, "It is paused; `kiln jobs resume 7` resumes it."),
            (
                WaitReason::Held { job: JobId(7), frames: 3 },
                "It is held after its first 3 frames; `kiln jobs resume 7` renders the others.",
            ),
            (
                WaitReason::Held { job: JobId(7), frames: 1 },
                "It is held after its first frame; `kiln jobs resume 7` renders the others.",
            ),
            (
                WaitReason::Dependencies { open: vec![JobId(3)], ended: vec![JobId(4), JobId(5)] },
                "It waits for job 3 to be completed. It waits for jobs 4, 5, which ended without all being completed: \
                 retry them, or release this job from them.",
            ),
            (WaitReason::StartTime { at_ms: 1, in_s: 7_200 }, "It does not start for another 2 hours."),
            (WaitReason::NoWorker, "No worker is connected."),
            (
                no_worker_fits(
                    vec![
                        UnmetRequirement::Blender { series: SERIES },
                        UnmetRequirement::Tag { name: name() },
                    ],
                    true,
                ),
                "No worker of the farm has Blender 4.5 or the tag nuke.",
            ),
            (
                no_worker_fits(vec![device(DeviceClass::Gpu)], true),
                "No worker of the farm has a GPU for Blender 4.5. The job takes the first that comes, whatever its \
                 backend; with --device cpu it renders on processors: submit it so if no such worker will come.",
            ),
            (
                no_worker_fits(vec![device(DeviceClass::Optix)], true),
                "No worker of the farm has an optix device for Blender 4.5. The job began on optix, and all of it must \
                 come from one backend; with --device cpu it renders on processors: submit it so if no such worker \
                 will come.",
            ),
            (
                no_worker_fits(vec![device(DeviceClass::Cuda)], false),
                "No worker of the farm has a cuda device for Blender 4.5.",
            ),
            (
                no_worker_fits(vec![], false),
                "No worker of the farm has everything that this job needs; oak comes nearest, and lacks 24.0 GiB of \
                 memory and 2 GPUs with 8.0 GiB of memory each.",
            ),
            (
                WaitReason::NotWorking { paused: 1, draining: 0, unavailable: 2, quarantined: 1, silent: 0 },
                "No worker that could take it works now: 1 paused, 2 unavailable, 1 quarantined (see `kiln workers`).",
            ),
            (
                WaitReason::Cooldown { workers: 2 },
                "The workers that could take it returned it or failed to begin it; they are asked again within half a \
                 minute.",
            ),
            (
                WaitReason::Limit { name: name(), total: 0, used: 0 },
                "It needs the limit nuke, of which the farm has none; `kiln limits set nuke N` says how many there are.",
            ),
            (
                WaitReason::Limit { name: name(), total: 3, used: 3 },
                "All 3 of the limit nuke are in use (3).",
            ),
            (
                WaitReason::WorkerCap { max_workers: 1 },
                "It is on a worker already, and may not be on more than one.",
            ),
            (WaitReason::WorkerCap { max_workers: 2 }, "It is on 2 workers already, and may not be on more."),
            (
                WaitReason::AccountCap { kind: AccountKind::Project, name: name(), max_slots: 1 },
                "The project nuke holds the slot that it may hold at once.",
            ),
            (
                WaitReason::AccountCap { kind: AccountKind::User, name: name(), max_slots: 4 },
                "The user nuke holds the 4 slots that it may hold at once.",
            ),
            (
                WaitReason::Busy { workers: 1, holders: vec![], more: 0 },
                "The one worker that can take it is busy with this job.",
            ),
            (
                WaitReason::Busy {
                    workers: 3,
                    holders: vec![holder(8, 1, Higher), holder(9, 2, Lower)],
                    more: 2,
                },
                "All 3 workers that can take it are busy, with job 8 (forest; 1 slot, of higher priority), job 9 \
                 (forest; 2 slots, of lower priority (its frames end first)) and 2 more.",
            ),
            (
                WaitReason::FailedHere {
                    free: vec!["oak".to_owned()],
                    more_free: 0,
                    busy: 1,
                    holders: vec![holder(8, 1, Same)],
                    more: 0,
                },
                "It has failed on oak, which is free; the one worker on which it has not failed is busy, with job 8 \
                 (forest; 1 slot).",
            ),
            (
                WaitReason::FailedHere {
                    free: vec!["ash".to_owned(), "oak".to_owned()],
                    more_free: 4,
                    busy: 2,
                    holders: vec![],
                    more: 0,
                },
                "It has failed on ash, oak, 4 more, which are free; the 2 workers on which it has not failed are busy \
                 with this job.",
            ),
            (
                WaitReason::NoRoom { reserved: Some("oak".to_owned()) },
                "It needs more of a machine than is free; oak is kept for it as others end.",
            ),
            (
                WaitReason::NoRoom { reserved: None },
                "It needs more of a machine than is free on any one; it takes the first that has room.",
            ),
        ]
    }

    #[test]
    fn every_reason_reads_as_a_sentence_and_survives_the_wire() {
        let mut codes = std::collections::BTreeSet::new();
        for (reason, sentence) in reasons() {
            assert_eq!(reason.to_string(), sentence);
            let json = serde_json::to_value(&reason).unwrap();
            codes.insert(json["code"].as_str().unwrap().to_owned());
            assert_eq!(serde_json::from_value::<WaitReason>(json.clone()).unwrap(), reason, "{json}");
        }
        // The document lists one shape for each code, and the sentences above are of all of them.
        let schema = serde_json::to_value(<WaitReason as utoipa::PartialSchema>::schema()).unwrap();
        assert_eq!(schema["oneOf"].as_array().map(Vec::len), Some(codes.len()), "{codes:?}");
    }

    #[test]
    fn a_program_reads_codes_and_parameters() {
        let missing = vec![UnmetRequirement::Device { series: SERIES, device: DeviceClass::Cuda }];
        let json = serde_json::to_value(no_worker_fits(missing, false)).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "code": "no-worker-fits", "any_gpu": false, "nearest": "oak",
                "missing": [{ "code": "device", "series": "4.5", "device": "cuda" }],
                "nearest_missing": [
                    { "code": "memory", "bytes": 25_769_803_776_u64 },
                    { "code": "gpus", "gpus": "2", "memory": 8_589_934_592_u64 },
                ],
            })
        );
    }

    #[test]
    fn what_follows_from_a_missing_blender_or_device_is_left_out() {
        let engine = || UnmetRequirement::Engine { series: SERIES, engine: "LUXCORE".to_owned() };
        let denoiser =
            || UnmetRequirement::Denoiser { series: SERIES, denoiser: "OPENIMAGEDENOISE".to_owned() };
        let device = || UnmetRequirement::Device { series: SERIES, device: DeviceClass::Cuda };
        let gpus = || UnmetRequirement::Gpus { gpus: GpuUse::All, memory: None };
        let tag = || UnmetRequirement::Tag { name: "fast".to_owned() };
        let of = UnmetRequirement::without_consequences;
        let blender = || UnmetRequirement::Blender { series: SERIES };
        assert_eq!(of(vec![blender(), device(), engine(), denoiser(), tag(), gpus()]), [blender(), tag()]);
        assert_eq!(of(vec![device(), engine(), gpus()]), [device(), engine()]);
        assert_eq!(of(vec![tag(), gpus()]), [tag(), gpus()]);
        let other = UnmetRequirement::Blender { series: BlenderSeries { major: 5, minor: 0 } };
        assert_eq!(of(vec![other.clone(), engine()]), [other, engine()]);
        assert_eq!(denoiser().to_string(), "the denoiser OpenImageDenoise in Blender 4.5");
    }
}
