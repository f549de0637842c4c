//! The memory of GPUs. Blender does not report it; NVIDIA's driver does, by the names that Blender shows.

use std::{path::Path, time::Duration};

use kiln_host::Device;
use kiln_types::DeviceClass;
use tokio::{process::Command, time::timeout};

/// There where NVIDIA's driver is.
const DRIVER: &str = "/proc/driver/nvidia/version";
/// For the driver's answer; it may have to wake its cards.
const ANSWER: Duration = Duration::from_secs(10);
/// The ending of the name that Blender gives to a card with a screen.
const SCREEN: &str = " (Display)";

/// Bytes, by name.
#[derive(Debug, Default)]
pub(crate) struct GpuMemory(Vec<(String, u64)>);

impl GpuMemory {
    /// Asks the driver; nothing is known without one, or without an answer.
    pub(crate) async fn ask() -> Self {
        if !Path::new(DRIVER).exists() {
            return Self::default();
        }
        let mut command = Command::new("nvidia-smi");
        command.args(["--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]).kill_on_drop(true);
        match timeout(ANSWER, command.output()).await {
            Ok(Ok(output)) if output.status.success() => Self::read(&String::from_utf8_lossy(&output.stdout)),
            _ => {
                tracing::info!(
                    "nvidia-smi does not tell how much memory the GPUs have; jobs are not kept off them"
                );
                Self::default()
            }
        }
    }

    /// Lines of `NVIDIA RTX A6000, 49140`, in MiB.
    fn read(text: &str) -> Self {
        let line = |line: &str| {
            let (name, size) = line.rsplit_once(',')?;
            Some((name.trim().to_owned(), size.trim().parse::<u64>().ok()?.checked_mul(1 << 20)?))
        };
        Self(text.lines().filter_map(line).collect())
    }

    /// Of several cards with one name, the smallest: nothing tells which is which.
    pub(crate) fn of(&self, device: &Device) -> Option<u64> {
        if !matches!(device.backend, DeviceClass::Cuda | DeviceClass::Optix) {
            return None;
        }
        let name = device.name.strip_suffix(SCREEN).unwrap_or(&device.name);
        self.0.iter().filter(|(known, _)| known == name).map(|(_, bytes)| *bytes).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_known_by_its_name() {
        let memory = GpuMemory::read(
            "NVIDIA RTX A6000, 49140\nNVIDIA A100, 81920\nNVIDIA A100, 40960\nold, [N/A]\nhuge, 99999999999999999\n\n",
        );
        let of = |backend, name: &str| memory.of(&Device { backend, name: name.to_owned() });
        assert_eq!(of(DeviceClass::Optix, "NVIDIA RTX A6000"), Some(49140 << 20));
        assert_eq!(of(DeviceClass::Cuda, "NVIDIA RTX A6000 (Display)"), Some(49140 << 20));
        assert_eq!(of(DeviceClass::Cuda, "NVIDIA A100"), Some(40960 << 20));
        assert_eq!(of(DeviceClass::Cuda, "old"), None);
        assert_eq!(of(DeviceClass::Cuda, "huge"), None);
        assert_eq!(of(DeviceClass::Cpu, "NVIDIA A100"), None);
    }
}
