//! A worker: its description of itself, and what the farm knows about it.

use std::collections::BTreeSet;

use kiln_api::{BlenderOffer, Down, Hello, Machine, MachineOffer, Unavailability};
use kiln_core::WorkerOffer;
use kiln_types::{DesiredState, DeviceClass, ShortName};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::plan;

/// Tags, or network cards, of one worker.
const MAX_LISTED: usize = 64;
/// Characters of one text in a worker's description.
const MAX_TEXT: usize = 120;

/// A worker, connected or not.
pub(crate) struct KnownWorker {
    pub name: String,
    pub info: WorkerInfo,
    pub desired: DesiredState,
    pub pools: BTreeSet<ShortName>,
    pub last_seen_ms: i64,
    pub link: Option<LinkHandle>,
}

impl KnownWorker {
    /// The offer of the worker, with the labels of its pools.
    pub(crate) fn offer(&self) -> WorkerOffer {
        let mut offer = self.info.offer(&self.name);
        offer.labels.extend(self.pools.iter().map(|pool| plan::pool_label(pool)));
        offer
    }
}

/// A worker's description of itself, as the records keep it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct WorkerInfo {
    pub build: String,
    pub machine: Machine,
    pub slots: u16,
    pub blenders: Vec<BlenderOffer>,
    pub shared: Vec<String>,
    /// `None` for all that the machine has.
    pub offered: Option<MachineOffer>,
    pub tags: Vec<String>,
    pub unavailable: Option<Unavailability>,
    pub wakes: bool,
    pub macs: Vec<String>,
}

impl WorkerInfo {
    pub(super) fn of(hello: Hello) -> Self {
        Self {
            build: hello.build,
            machine: hello.machine,
            slots: hello.slots.min(WorkerOffer::MAX_SLOTS),
            blenders: hello.blenders,
            shared: hello.shared.iter().map(ToString::to_string).collect(),
            offered: hello.offered,
            tags: hello.tags.iter().take(MAX_LISTED).map(ToString::to_string).collect(),
            unavailable: hello.unavailable.map(shorten),
            wakes: hello.wakes,
            macs: hello.macs.iter().take(MAX_LISTED).map(|mac| short(mac)).collect(),
        }
    }

    pub(super) fn offered(&self) -> MachineOffer {
        self.offered.unwrap_or(MachineOffer { cores: self.machine.cores, memory: self.machine.memory })
    }

    /// Returns the memory of each GPU, 0 if it is not known. One GPU is listed once for each backend: the longest list has
    /// them all.
    fn gpus(&self) -> Vec<u64> {
        let listed = |blender: &BlenderOffer, class: DeviceClass| {
            let devices = blender.devices.iter().filter(|device| device.class == class);
            devices.map(|device| device.memory.unwrap_or(0)).collect::<Vec<u64>>()
        };
        let gpus = DeviceClass::ALL.iter().copied().filter(|class| *class != DeviceClass::Cpu);
        let lists = gpus.flat_map(|class| self.blenders.iter().map(move |blender| listed(blender, class)));
        lists.max_by_key(Vec::len).unwrap_or_default()
    }

    /// Returns the offer, with the labels that [`plan::labels`] requires.
    fn offer(&self, name: &str) -> WorkerOffer {
        let mut labels = BTreeSet::new();
        for blender in &self.blenders {
            let series = blender.version.series();
            labels.insert(plan::blender_label(series));
            for device in &blender.devices {
                labels.insert(plan::device_label(series, device.class));
                if DeviceClass::BACKENDS.contains(&device.class) {
                    labels.insert(plan::device_label(series, DeviceClass::Gpu));
                }
            }
            for engine in &blender.engines {
                labels.insert(plan::engine_label(series, engine));
            }
            for denoiser in &blender.denoisers {
                labels.insert(plan::denoiser_label(series, denoiser));
            }
        }
        labels.extend(self.shared.iter().map(|name| plan::shared_label(name)));
        labels.extend(self.tags.iter().map(|tag| plan::tag_label(tag)));
        WorkerOffer {
            name: name.to_owned(),
            slots: self.slots,
            labels,
            unavailable: self.unavailable.is_some(),
            cores: self.offered().cores,
            memory: self.offered().memory,
            gpus: self.gpus(),
        }
    }
}

/// Shortens a text of a worker, and removes control characters.
fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}

pub(super) fn shorten(reason: Unavailability) -> Unavailability {
    Unavailability { why: short(&reason.why), ..reason }
}

/// The scheduler's end of a worker's connection.
pub(crate) struct LinkHandle {
    /// Tells connections of one worker apart.
    pub number: u64,
    pub out: mpsc::Sender<Down>,
    /// Ends the connection.
    pub end: CancellationToken,
}
