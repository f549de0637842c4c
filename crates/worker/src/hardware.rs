//! The hardware of this machine, and its available memory.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

use kiln_api::Machine;

fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib.saturating_mul(1024))
}

/// Bytes of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) total: u64,
    pub(crate) available: u64,
}

impl Memory {
    /// The machine's, or the cgroup's where that has less.
    pub(crate) fn now() -> Self {
        let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let machine = Self::of_meminfo(&text);
        let group = fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| {
            let path = text.lines().find_map(|line| line.strip_prefix("0::"))?.trim_matches('/').to_owned();
            let number = |name: &str| {
                fs::read_to_string(format!("/sys/fs/cgroup/{path}/{name}")).ok()?.trim().parse::<u64>().ok()
            };
            Some((number("memory.max")?, number("memory.current")?))
        });
        match group {
            Some((max, current)) => machine.within(max, current),
            None => machine,
        }
    }

    fn of_meminfo(text: &str) -> Self {
        Self {
            total: field(text, "MemTotal").unwrap_or(0),
            available: field(text, "MemAvailable").unwrap_or(0),
        }
    }

    /// A part of it, of which `held` bytes are taken.
    pub(crate) fn offered(self, offered: Option<u64>, held: impl FnOnce() -> u64) -> Self {
        offered.filter(|offered| *offered < self.total).map_or(self, |offered| self.within(offered, held()))
    }

    fn within(self, max: u64, current: u64) -> Self {
        Self { total: self.total.min(max), available: self.available.min(max.saturating_sub(current)) }
    }
}

/// Describes this machine for the server.
pub(crate) fn describe() -> Machine {
    let names = rustix::system::uname();
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map(|(_, name)| name.trim().to_owned())
        .unwrap_or_default();
    Machine {
        hostname: names.nodename().to_string_lossy().into_owned(),
        system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        cpu,
        cores: thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
        memory: Memory::now().total,
    }
}

/// GPUs that render, before a Blender has said what it can use: those of NVIDIA by their device files, else the graphics
/// cards that may be used without a screen.
pub(crate) fn gpus(dev: &Path) -> u32 {
    let count = |folder: PathBuf, prefix: &str| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let numbered = entries.filter(|entry| {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(prefix));
            number
                .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
        });
        u32::try_from(numbered.count()).unwrap_or(u32::MAX)
    };
    match count(dev.to_owned(), "nvidia") {
        // Only where there is the driver that computes with them.
        0 if dev.join("kfd").exists() => count(dev.join("dri"), "renderD"),
        nvidia => nvidia,
    }
}

/// The addresses by which a switch knows this machine, those of real cards where it has any.
pub(crate) fn macs(net: &Path) -> Vec<String> {
    let read = |path: PathBuf| fs::read_to_string(path).map(|text| text.trim().to_owned());
    let mut cards: Vec<(bool, String)> = fs::read_dir(net)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        // Ethernet, and what looks like it.
        .filter(|card| read(card.join("type")).is_ok_and(|kind| kind == "1"))
        .filter_map(|card| Some((card.join("device").exists(), read(card.join("address")).ok()?)))
        .filter(|(_, address)| address.bytes().any(|byte| !b"0:".contains(&byte)))
        .collect();
    let any_real = cards.iter().any(|(real, _)| *real);
    cards.retain(|(real, _)| *real == any_real);
    let mut addresses: Vec<String> = cards.into_iter().map(|(_, address)| address).collect();
    addresses.sort();
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_gpus_by_their_device_files() {
        let dev = tempfile::tempdir().unwrap();
        let file = |name: &str| fs::write(dev.path().join(name), "").unwrap();
        assert_eq!(gpus(dev.path()), 0);
        fs::create_dir(dev.path().join("dri")).unwrap();
        ["dri/card0", "dri/renderD128", "dri/renderD129", "null"].into_iter().for_each(file);
        assert_eq!(gpus(dev.path()), 0, "a screen renders nothing");
        file("kfd");
        assert_eq!(gpus(dev.path()), 2);
        ["nvidia0", "nvidiactl", "nvidia-uvm"].into_iter().for_each(file);
        assert_eq!(gpus(dev.path()), 1);
    }

    #[test]
    fn reads_what_the_kernel_says() {
        let memory = Memory::of_meminfo("MemTotal:  100 kB\nMemFree: 1 kB\nMemAvailable:   50 kB\n");
        assert_eq!(memory, Memory { total: 102_400, available: 51_200 });
        assert_eq!(memory.within(60_000, 50_000), Memory { total: 60_000, available: 10_000 });
        assert_eq!(memory.within(u64::MAX, 0), memory);
        let held = || 50_000;
        assert_eq!(memory.offered(Some(60_000), held), Memory { total: 60_000, available: 10_000 });
        assert_eq!(memory.offered(Some(1 << 40), held), memory);
        assert_eq!(memory.offered(None, held), memory);
    }

    #[test]
    fn real_cards_are_named_before_made_up_ones() {
        let net = tempfile::tempdir().unwrap();
        let card = |name: &str, kind: &str, address: &str| {
            let card = net.path().join(name);
            fs::create_dir(&card).unwrap();
            fs::write(card.join("type"), format!("{kind}\n")).unwrap();
            fs::write(card.join("address"), format!("{address}\n")).unwrap();
            card
        };
        card("lo", "772", "00:00:00:00:00:00");
        card("dummy0", "1", "00:00:00:00:00:00");
        card("veth0", "1", "02:00:00:00:00:01");
        assert_eq!(macs(net.path()), ["02:00:00:00:00:01"]);
        fs::create_dir(card("eth0", "1", "52:54:00:12:34:56").join("device")).unwrap();
        assert_eq!(macs(net.path()), ["52:54:00:12:34:56"]);
    }

    #[test]
    fn this_machine_is_something() {
        let machine = describe();
        assert!(machine.cores >= 1 && machine.memory > 0 && !machine.hostname.is_empty());
    }
}
