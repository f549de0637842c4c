//! The choice of the device on which a job renders: the requested one, that of the frames that are there, or the scene's.

use std::pin::Pin;

use kiln_types::{BlenderSeries, BlenderVersion, DeviceChoice, DeviceClass};

use super::{
    error::SubmissionError,
    event::{DeviceReason, SubmissionEvent},
};
use crate::{Client, Prepared};

/// The place where a job will render.
pub enum RenderPlace<'a> {
    /// This machine, with its Blenders.
    Here(&'a [&'a dyn LocalDevices]),
    /// Any worker of this farm.
    Farm(&'a Client),
}

/// A Blender of this machine. Only Blender knows which devices it can use.
pub trait LocalDevices: Send + Sync {
    fn blender(&self) -> BlenderVersion;

    /// Asks Blender for its devices, or fails with a sentence.
    fn devices(&self) -> DevicesFuture<'_>;
}

/// The answer of [`LocalDevices::devices`].
pub type DevicesFuture<'a> = Pin<Box<dyn Future<Output = Result<Vec<LocalDevice>, String>> + Send + 'a>>;

/// A device that a Blender of this machine can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalDevice {
    pub backend: DeviceClass,
    /// The name that its maker gives it.
    pub name: String,
}

impl RenderPlace<'_> {
    /// Checks that this machine has the device for a Blender of this series. Without it, the job would wait without end.
    pub async fn check(&self, series: BlenderSeries, device: DeviceClass) -> Result<(), SubmissionError> {
        let Self::Here(blenders) = self else { return Ok(()) };
        if device == DeviceClass::Cpu {
            return Ok(());
        }
        let blender = blender_of(blenders, series)?;
        let there = devices(blender).await?;
        if has(&there, device) { Ok(()) } else { Err(lacks(blender, &there, device)) }
    }
}

fn blender_of<'a>(
    blenders: &[&'a dyn LocalDevices],
    series: BlenderSeries,
) -> Result<&'a dyn LocalDevices, SubmissionError> {
    let found = blenders.iter().find(|blender| blender.blender().series() == series);
    found.copied().ok_or_else(|| SubmissionError::Devices(format!("Blender {series} is not on this machine")))
}

async fn devices(blender: &dyn LocalDevices) -> Result<Vec<LocalDevice>, SubmissionError> {
    blender.devices().await.map_err(SubmissionError::Devices)
}

/// Returns whether a device is there; any backend of GPUs is a `Gpu`.
fn has(there: &[LocalDevice], device: DeviceClass) -> bool {
    match device {
        DeviceClass::Cpu => true,
        DeviceClass::Gpu => there.iter().any(|one| one.backend.is_gpu()),
        backend => there.iter().any(|one| one.backend == backend),
    }
}

fn lacks(blender: &dyn LocalDevices, there: &[LocalDevice], device: DeviceClass) -> SubmissionError {
    let mut other: Vec<&'static str> = there.iter().map(|device| device.backend.as_str()).collect();
    other.sort_unstable();
    other.dedup();
    SubmissionError::NoDevice { blender: blender.blender().to_string(), device, there: other }
}

/// Returns the devices that may have made the frames that are there, the most likely first; none if one device is requested
/// by name.
pub(crate) fn candidates(choice: DeviceChoice, prepared: &Prepared) -> Vec<DeviceClass> {
    let gpus = DeviceClass::BACKENDS.into_iter();
    match choice {
        DeviceChoice::Auto if prepared.session.device == DeviceClass::Cpu => {
            [DeviceClass::Cpu].into_iter().chain(gpus).collect()
        }
        DeviceChoice::Auto => gpus.chain([DeviceClass::Cpu]).collect(),
        DeviceChoice::Gpu => gpus.collect(),
        _ => Vec::new(),
    }
}

/// Returns the devices on which an edited scene continues if they made frames of its earlier save: any GPU, if any will do.
pub(crate) fn earlier_devices(wanted: DeviceClass) -> &'static [DeviceClass] {
    if wanted == DeviceClass::Gpu { &DeviceClass::BACKENDS } else { &[] }
}

/// Chooses the device, and returns the event if it differs from the requested one. The device of frames that are there comes
/// first, so that the same command continues on any machine.
pub(crate) async fn choose_device(
    choice: DeviceChoice,
    recorded: Option<DeviceClass>,
    prepared: &mut Prepared,
    place: &RenderPlace<'_>,
) -> Result<Option<SubmissionEvent>, SubmissionError> {
    let asked = prepared.session.device;
    let event = |device, reason| Some(SubmissionEvent::Device { device, reason });
    if let Some(device) = recorded {
        prepared.session.device = device;
        return Ok(event(device, DeviceReason::MadeEarlierFrames { asked }).filter(|_| asked != device));
    }
    if asked != DeviceClass::Gpu {
        return Ok(None);
    }
    let is_set_by_scene = choice == DeviceChoice::Auto;
    let RenderPlace::Here(blenders) = place else {
        return Ok(event(asked, DeviceReason::FirstWorkerDecides).filter(|_| is_set_by_scene));
    };
    let blender = blender_of(blenders, prepared.session.blender)?;
    let there = devices(blender).await?;
    let Some(best) = DeviceClass::best(|backend| has(&there, backend)) else {
        if !is_set_by_scene {
            return Err(lacks(blender, &there, DeviceClass::Gpu));
        }
        prepared.session.device = DeviceClass::Cpu;
        let blender = blender.blender().to_string();
        return Ok(event(DeviceClass::Cpu, DeviceReason::NoGpuHere { blender }));
    };
    prepared.session.device = best;
    let cards = there.into_iter().filter(|device| device.backend == best).map(|device| device.name).collect();
    Ok(event(best, DeviceReason::BestHere { cards, is_set_by_scene }))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Desk(Vec<LocalDevice>);

    impl LocalDevices for Desk {
        fn blender(&self) -> BlenderVersion {
            "4.5.3".parse().unwrap()
        }

        fn devices(&self) -> DevicesFuture<'_> {
            Box::pin(async { Ok(self.0.clone()) })
        }
    }

    fn device(backend: DeviceClass, name: &str) -> LocalDevice {
        LocalDevice { backend, name: name.to_owned() }
    }

    #[tokio::test]
    async fn a_device_that_this_machine_lacks_is_refused_with_those_that_it_has() {
        let desk = Desk(vec![
            device(DeviceClass::Cuda, "A6000"),
            device(DeviceClass::Cpu, "x86"),
            device(DeviceClass::Cuda, "T4"),
        ]);
        let (blenders, series) = ([&desk as &dyn LocalDevices], desk.blender().series());
        let place = RenderPlace::Here(&blenders);
        for there in [DeviceClass::Cpu, DeviceClass::Cuda, DeviceClass::Gpu] {
            place.check(series, there).await.unwrap();
        }
        let error = place.check(series, DeviceClass::Hip).await.unwrap_err().to_string();
        assert!(
            error.contains("Blender 4.5.3 finds no hip device on this machine; it has: cpu, cuda ("),
            "{error}"
        );
        let bare = Desk(Vec::new());
        let bare = RenderPlace::Here(&[&bare]).check(series, DeviceClass::Gpu).await;
        let error = bare.unwrap_err().to_string();
        assert!(error.contains("finds no GPU that it can use on this machine; it has: cpu ("), "{error}");
    }
}
