//! What the farm is told of this worker's Blenders.

use std::sync::Arc;

use kiln_api::{BlenderOffer, DeviceOffer};
use kiln_host::{BlenderInstall, Device};
use kiln_types::{BlenderSeries, BlenderVersion, DeviceClass};

use crate::{gpus::GpuMemory, seat::Met};

/// One offer a series: of several Blenders of one series the first found is the one that renders.
#[derive(Debug, Default)]
pub(crate) struct Offers {
    gpus: Arc<GpuMemory>,
    /// Whether each has been started and has said all.
    list: Vec<(BlenderInstall, BlenderOffer, bool)>,
}

impl Offers {
    /// What is known before any of them has been started: every Blender has the engines of its release, and the denoiser
    /// that its makers build it with.
    pub(crate) fn new(installs: &[BlenderInstall], devices: Option<&[Device]>, gpus: Arc<GpuMemory>) -> Self {
        let mut offers: Vec<(BlenderInstall, BlenderOffer, bool)> = Vec::new();
        for install in installs {
            if offers.iter().all(|(_, offer, _)| offer.version.series() != install.version.series()) {
                let offer = BlenderOffer {
                    version: install.version,
                    build_hash: install.build_hash.clone(),
                    flavor: install.flavor,
                    engines: engines(install.version),
                    devices: with_processor(devices.unwrap_or_default(), &gpus),
                    denoisers: vec!["OPENIMAGEDENOISE".to_owned()],
                };
                offers.push((install.clone(), offer, false));
            }
        }
        Self { gpus, list: offers }
    }

    /// A Blender has been started and has said what it can do. Returns whether that is news.
    pub(crate) fn met(&mut self, met: &Met) -> bool {
        let Some((_, offer, known)) = self.list.iter_mut().find(|(install, ..)| *install == met.install)
        else {
            return false;
        };
        *known = true;
        let full = BlenderOffer {
            version: met.version,
            build_hash: met.build_hash.clone(),
            flavor: offer.flavor,
            engines: met.capabilities.engines.clone(),
            devices: with_processor(&met.capabilities.devices, &self.gpus),
            denoisers: met.capabilities.denoisers.clone(),
        };
        let news = full != *offer;
        *offer = full;
        news
    }

    pub(crate) fn all(&self) -> Vec<BlenderOffer> {
        self.list.iter().map(|(_, offer, _)| offer.clone()).collect()
    }

    /// A series whose Blender has not been started yet.
    pub(crate) fn unknown(&self) -> Option<BlenderSeries> {
        self.list.iter().find(|(.., known)| !known).map(|(_, offer, _)| offer.version.series())
    }

    /// Looks at this series no more: its Blender does not start.
    pub(crate) fn give_up(&mut self, series: BlenderSeries) {
        self.list.retain(|(_, offer, known)| *known || offer.version.series() != series);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

fn with_processor(devices: &[Device], gpus: &GpuMemory) -> Vec<DeviceOffer> {
    let mut offers: Vec<DeviceOffer> = devices
        .iter()
        .map(|device| DeviceOffer {
            class: device.backend,
            name: device.name.clone(),
            memory: gpus.of(device),
        })
        .collect();
    if offers.iter().all(|offer| offer.class != DeviceClass::Cpu) {
        offers.insert(0, DeviceOffer { class: DeviceClass::Cpu, name: String::new(), memory: None });
    }
    offers
}

/// EEVEE was rewritten for 4.2 under another name, which 5.0 gave up again.
fn engines(version: BlenderVersion) -> Vec<String> {
    let eevee = match (version.major, version.minor) {
        (4, 2..) => "BLENDER_EEVEE_NEXT",
        _ => "BLENDER_EEVEE",
    };
    ["CYCLES", eevee, "BLENDER_WORKBENCH"].map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use kiln_host::Capabilities;
    use kiln_types::BlenderFlavor;

    use super::*;

    fn install(program: &str, version: &str) -> BlenderInstall {
        BlenderInstall {
            program: program.into(),
            flavor: BlenderFlavor::Executable,
            version: version.parse().unwrap(),
            build_hash: String::new(),
        }
    }

    #[test]
    fn one_offer_a_series_that_grows_when_it_is_met() {
        let installs = [install("/a", "4.5.3"), install("/b", "4.5.1"), install("/c", "3.4.1")];
        let mut offers = Offers::new(&installs, None, Arc::default());
        let all = offers.all();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].engines[1], "BLENDER_EEVEE_NEXT");
        assert_eq!(all[1].engines[1], "BLENDER_EEVEE");
        assert_eq!(all[0].devices[0].class, DeviceClass::Cpu);
        assert_eq!(offers.unknown(), Some("4.5".parse().unwrap()));
        let met = Met {
            install: installs[0].clone(),
            version: installs[0].version,
            build_hash: "abc".to_owned(),
            capabilities: Capabilities {
                engines: vec!["CYCLES".to_owned()],
                devices: vec![Device { backend: DeviceClass::Optix, name: "A6000".to_owned() }],
                denoisers: vec![],
            },
        };
        assert!(offers.met(&met));
        assert!(!offers.met(&met), "the second time it is no news");
        assert_eq!(offers.all()[0].devices.len(), 2);
        assert_eq!(offers.unknown(), Some("3.4".parse().unwrap()));
        offers.give_up("3.4".parse().unwrap());
        assert_eq!(offers.unknown(), None);
        assert_eq!(offers.all().len(), 1);
    }
}
