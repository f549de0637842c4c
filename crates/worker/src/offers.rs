//! The offers of this worker's Blenders to the farm.

use std::sync::Arc;

use kiln_api::{BlenderOffer, DeviceOffer};
use kiln_host::{BlenderInstall, Device};
use kiln_types::{BlenderSeries, BlenderVersion, DeviceClass};

use crate::{gpus::GpuMemory, process::ProbedBlender};

/// One offer a series: of several Blenders of one series the first found is the one that renders.
#[derive(Debug, Default)]
pub(crate) struct Offers {
    gpus: Arc<GpuMemory>,
    /// Each install with its offer, and whether that is complete because it was probed.
    list: Vec<(BlenderInstall, BlenderOffer, bool)>,
}

impl Offers {
    /// The offers before any Blender has been started: each has the engines of its release, and the denoiser that its makers
    /// build it with.
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

    /// Completes the offer of a Blender. Returns whether it has changed.
    pub(crate) fn update(&mut self, probed: &ProbedBlender) -> bool {
        let Some((_, offer, is_probed)) =
            self.list.iter_mut().find(|(install, ..)| *install == probed.install)
        else {
            return false;
        };
        *is_probed = true;
        let full = BlenderOffer {
            version: probed.version,
            build_hash: probed.build_hash.clone(),
            flavor: offer.flavor,
            engines: probed.capabilities.engines.clone(),
            devices: with_processor(&probed.capabilities.devices, &self.gpus),
            denoisers: probed.capabilities.denoisers.clone(),
        };
        let changed = full != *offer;
        *offer = full;
        changed
    }

    pub(crate) fn all(&self) -> Vec<BlenderOffer> {
        self.list.iter().map(|(_, offer, _)| offer.clone()).collect()
    }

    /// Returns a series whose Blender has not been probed.
    pub(crate) fn unprobed(&self) -> Option<BlenderSeries> {
        self.list.iter().find(|(.., is_probed)| !is_probed).map(|(_, offer, _)| offer.version.series())
    }

    /// Removes a series whose Blender does not start.
    pub(crate) fn remove_unprobed(&mut self, series: BlenderSeries) {
        self.list.retain(|(_, offer, is_probed)| *is_probed || offer.version.series() != series);
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

/// The engines of a release. EEVEE was rewritten for 4.2 under another name, which 5.0 dropped again.
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
    fn one_offer_a_series_that_is_completed_by_a_probe() {
        let installs = [install("/a", "4.5.3"), install("/b", "4.5.1"), install("/c", "3.4.1")];
        let mut offers = Offers::new(&installs, None, Arc::default());
        let all = offers.all();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].engines[1], "BLENDER_EEVEE_NEXT");
        assert_eq!(all[1].engines[1], "BLENDER_EEVEE");
        assert_eq!(all[0].devices[0].class, DeviceClass::Cpu);
        assert_eq!(offers.unprobed(), Some("4.5".parse().unwrap()));
        let probed = ProbedBlender {
            install: installs[0].clone(),
            version: installs[0].version,
            build_hash: "abc".to_owned(),
            capabilities: Capabilities {
                engines: vec!["CYCLES".to_owned()],
                devices: vec![Device { backend: DeviceClass::Optix, name: "A6000".to_owned() }],
                denoisers: vec![],
            },
        };
        assert!(offers.update(&probed));
        assert!(!offers.update(&probed), "the second time nothing has changed");
        assert_eq!(offers.all()[0].devices.len(), 2);
        assert_eq!(offers.unprobed(), Some("3.4".parse().unwrap()));
        offers.remove_unprobed("3.4".parse().unwrap());
        assert_eq!(offers.unprobed(), None);
        assert_eq!(offers.all().len(), 1);
    }
}
