//! The device of a job in words, and the reason for it.

use kiln_client::submission::DeviceReason;
use kiln_types::DeviceClass;

pub fn chosen(device: DeviceClass, reason: &DeviceReason) -> String {
    match reason {
        DeviceReason::MadeEarlierFrames { asked } => continues(*asked, device),
        DeviceReason::FirstWorkerDecides => {
            "the scene is set to GPU: all frames render on the backend of the first worker with a GPU that takes one \
             (--device cpu renders on processors)"
                .to_owned()
        }
        DeviceReason::BestHere { cards, is_set_by_scene } => {
            let why = if *is_set_by_scene { "the scene is set to GPU: " } else { "" };
            format!("{why}it renders on {device} ({})", cards.join(", "))
        }
        DeviceReason::NoGpuHere { blender } => format!(
            "the scene is set to GPU, and Blender {blender} finds no GPU on this machine that it can use: it renders on the CPU"
        ),
    }
}

fn continues(asked: DeviceClass, device: DeviceClass) -> String {
    let other = if asked == DeviceClass::Gpu && device == DeviceClass::Cpu {
        "; the scene is set to GPU: --device gpu with --existing overwrite renders all frames on GPUs"
    } else if asked == DeviceClass::Cpu {
        "; the scene is set to CPU: --device cpu with --existing overwrite renders all frames on the CPU"
    } else {
        ""
    };
    format!("it continues on {device}, which made the frames that are there{other}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_backend_is_named_with_its_cards() {
        let cards = vec!["A6000".to_owned(), "T400".to_owned()];
        let reason = DeviceReason::BestHere { cards, is_set_by_scene: true };
        let text = chosen(DeviceClass::Optix, &reason);
        assert_eq!(text, "the scene is set to GPU: it renders on optix (A6000, T400)");
    }

    #[test]
    fn a_device_other_than_the_scenes_is_named_with_the_way_out() {
        assert!(continues(DeviceClass::Gpu, DeviceClass::Cpu).contains("--device gpu"));
        assert!(continues(DeviceClass::Cpu, DeviceClass::Hip).contains("--device cpu"));
        let text = continues(DeviceClass::Gpu, DeviceClass::Optix);
        assert_eq!(text, "it continues on optix, which made the frames that are there");
    }
}
