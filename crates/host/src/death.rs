//! The cause of a process's death.

use std::{os::unix::process::ExitStatusExt, process::ExitStatus};

use kiln_types::{Failure, FailureCause};

use crate::log::Log;

/// The number of processes that the kernel has killed for memory.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct OomCount(Option<u64>);

impl OomCount {
    /// Counts in this program's cgroup, else on the whole machine.
    pub(crate) fn now() -> Self {
        let own = std::fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| {
            let path =
                text.lines().find_map(|line| line.strip_prefix("0::"))?.trim_start_matches('/').to_owned();
            std::fs::read_to_string(format!("/sys/fs/cgroup/{path}/memory.events")).ok()
        });
        let field = |text: &str, name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
        };
        let machine = || field(&std::fs::read_to_string("/proc/vmstat").ok()?, "oom_kill ");
        Self(own.as_deref().and_then(|text| field(text, "oom_kill ")).or_else(machine))
    }

    fn rose_since(self, earlier: Self) -> bool {
        matches!((self.0, earlier.0), (Some(now), Some(then)) if now > then)
    }
}

/// Returns the failure that describes the death. `before` was counted when the process was started.
pub(crate) fn explain(status: Option<ExitStatus>, log: &Log, before: OomCount, doing: &str) -> Failure {
    let memory = log.any(|line| {
        line.contains("Out of memory")
            || line.contains("std::bad_alloc")
            // Blender's own allocator: Malloc, Calloc, Mallocn_aligned, ...
            || line.contains(" returns null: len=")
    });
    let signal = status.and_then(|status| status.signal());
    let killed_for_memory = signal == Some(9) && OomCount::now().rose_since(before);
    if memory || killed_for_memory {
        return Failure::new(
            FailureCause::OutOfMemory,
            format!("Blender ran out of memory while {doing}; give the slot more memory, or run fewer slots"),
        );
    }
    let message = match (signal, status.and_then(|status| status.code())) {
        (Some(signal), _) => {
            format!("Blender crashed while {doing} (signal {signal}, {})", signal_name(signal))
        }
        (None, Some(code)) => format!("Blender ended by itself while {doing} (exit code {code})"),
        (None, None) => format!("Blender was lost while {doing}"),
    };
    Failure::new(FailureCause::Crashed, message)
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        4 => "illegal instruction",
        6 => "abort",
        7 => "bus error",
        8 => "arithmetic error",
        9 => "killed",
        11 => "segmentation fault",
        15 => "terminated",
        24 => "processor time limit",
        25 => "file size limit",
        31 => "forbidden system call",
        _ => "see `kill -l`",
    }
}
