//! The device on which a job renders: as asked for, as the frames that are there were made, or as the scene says.

use kiln_client::{Client, Prepared};
use kiln_host::{BlenderInstall, Capabilities};
use kiln_types::{DeviceChoice, DeviceClass};

use crate::exit::{Fault, Outcome};

/// Where the job will render.
pub enum Place<'a> {
    /// By this Blender, on this machine alone.
    Here(&'a BlenderInstall),
    /// By whichever worker of this farm takes it.
    Farm(&'a Client),
}

impl Place<'_> {
    /// No device comes by itself to this machine; only Blender knows which it can use here.
    ///
    /// # Errors
    /// Where the job would wait for ever.
    pub async fn check(&self, device: DeviceClass) -> Outcome {
        let Self::Here(blender) = self else { return Ok(()) };
        if device == DeviceClass::Cpu {
            return Ok(());
        }
        let there = probe(blender).await?;
        if there.has(device) { Ok(()) } else { Err(lacks(blender, &there, device)) }
    }
}

async fn probe(blender: &BlenderInstall) -> Outcome<Capabilities> {
    kiln_host::probe(blender).await.map_err(|error| Fault::failed(error.to_string()))
}

fn lacks(blender: &BlenderInstall, there: &Capabilities, device: DeviceClass) -> Fault {
    let mut other: Vec<&str> = there.devices.iter().map(|device| device.backend.as_str()).collect();
    other.sort_unstable();
    other.dedup();
    let other = if other.is_empty() { "cpu".to_owned() } else { other.join(", ") };
    let what = match device {
        DeviceClass::Gpu => "GPU that it can use".to_owned(),
        backend => format!("{backend} device"),
    };
    Fault::bad_input(format!(
        "Blender {} finds no {what} on this machine; it has: {other} (choose one with --device, or render on a farm)",
        blender.version
    ))
}

/// The devices by which frames that are there may have been made, the likeliest first. None where one device is asked
/// for by its name.
pub fn candidates(choice: DeviceChoice, prepared: &Prepared) -> Vec<DeviceClass> {
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

/// The devices on which a scene that was edited goes on like the frames of its earlier save: that of the scene, or where
/// any GPU will do, any.
pub fn earlier_devices(wanted: DeviceClass) -> &'static [DeviceClass] {
    if wanted == DeviceClass::Gpu { &DeviceClass::BACKENDS } else { &[] }
}

/// Settles the device, and returns the line that tells what was chosen where that was not asked for. What is there goes
/// first: so the same command continues, on whichever machine it is given again.
///
/// # Errors
/// Where GPUs are asked for and this machine has none.
pub async fn settle(
    choice: DeviceChoice,
    recorded: Option<DeviceClass>,
    prepared: &mut Prepared,
    place: &Place<'_>,
) -> Outcome<Option<String>> {
    let wanted = prepared.session.device;
    if let Some(device) = recorded {
        prepared.session.device = device;
        return Ok((wanted != device).then(|| continues(wanted, device)));
    }
    if wanted != DeviceClass::Gpu {
        return Ok(None);
    }
    let auto = choice == DeviceChoice::Auto;
    let Place::Here(blender) = place else {
        let line = "the scene is set to GPU: all frames render on the backend of the first worker with a GPU that takes \
                    one (--device cpu renders on processors)";
        return Ok(auto.then(|| line.to_owned()));
    };
    let there = probe(blender).await?;
    match DeviceClass::best(|backend| there.has(backend)) {
        Some(backend) => {
            prepared.session.device = backend;
            Ok(Some(found(auto, backend, &there)))
        }
        None if auto => {
            prepared.session.device = DeviceClass::Cpu;
            Ok(Some(format!(
                "the scene is set to GPU, and Blender {} finds none on this machine that it can use: it renders on the CPU",
                blender.version
            )))
        }
        None => Err(lacks(blender, &there, DeviceClass::Gpu)),
    }
}

fn found(auto: bool, backend: DeviceClass, there: &Capabilities) -> String {
    let why = if auto { "the scene is set to GPU: " } else { "" };
    let names = there.devices.iter().filter(|device| device.backend == backend);
    let names: Vec<&str> = names.map(|device| device.name.as_str()).collect();
    format!("{why}it renders on {backend} ({})", names.join(", "))
}

fn continues(wanted: DeviceClass, device: DeviceClass) -> String {
    let other = if wanted == DeviceClass::Gpu && device == DeviceClass::Cpu {
        "; the scene is set to GPU: --device gpu with --existing overwrite renders all of it there"
    } else if wanted == DeviceClass::Cpu {
        "; the scene is set to CPU: --device cpu with --existing overwrite renders all of it there"
    } else {
        ""
    };
    format!("it goes on with {device}, which made the frames that are there{other}")
}

#[cfg(test)]
mod tests {
    use kiln_host::Device;

    use super::*;

    #[test]
    fn the_best_backend_is_named_with_its_cards() {
        let device = |backend, name: &str| Device { backend, name: name.to_owned() };
        let there = Capabilities {
            devices: vec![
                device(DeviceClass::Cpu, "x86"),
                device(DeviceClass::Cuda, "A6000"),
                device(DeviceClass::Optix, "A6000"),
                device(DeviceClass::Optix, "T400"),
            ],
            ..Capabilities::default()
        };
        let best = DeviceClass::best(|backend| there.has(backend)).unwrap();
        assert_eq!(found(true, best, &there), "the scene is set to GPU: it renders on optix (A6000, T400)");
    }

    #[test]
    fn what_goes_on_elsewhere_than_the_scene_says_names_the_way_out() {
        assert!(continues(DeviceClass::Gpu, DeviceClass::Cpu).contains("--device gpu"));
        assert!(continues(DeviceClass::Cpu, DeviceClass::Hip).contains("--device cpu"));
        let text = continues(DeviceClass::Gpu, DeviceClass::Optix);
        assert_eq!(text, "it goes on with optix, which made the frames that are there");
    }
}
