//! Times in order, and what a process uses.

use std::{
    fmt, fs,
    time::{Duration, Instant},
};

use super::Failed;

/// The figures of a load, a line for each.
#[derive(Debug, Default)]
pub struct Measured {
    pub lines: Vec<(String, String)>,
    /// Tasks whose commit was acknowledged.
    pub committed: u64,
}

impl Measured {
    pub fn line(&mut self, what: impl Into<String>, value: impl Into<String>) {
        self.lines.push((what.into(), value.into()));
    }

    /// In milliseconds.
    pub fn times(&mut self, what: impl Into<String>, times: &mut [Duration]) {
        times.sort_unstable();
        let at = |part: f64| {
            let last = times.len().saturating_sub(1);
            times.get((last as f64 * part) as usize).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
        };
        let (p50, p95, p99, most) = (at(0.5), at(0.95), at(0.99), at(1.0));
        let count = times.len();
        let value =
            format!("p50 {p50:.1} ms, p95 {p95:.1} ms, p99 {p99:.1} ms, max {most:.1} ms ({count} times)");
        self.line(what, value);
    }

    /// Processor time over a time, of the server and of this load apart.
    pub fn processors(&mut self, server: &Spent, own: &Spent) {
        self.line("server's own CPU", format!("{:.2} of a core", server.share()));
        self.line("load generator's own CPU, beside it", format!("{:.2} of a core", own.share()));
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|(what, value)| writeln!(f, "{what}: {value}"))
    }
}

/// Megabytes of memory that the process holds now.
pub fn resident_mb(pid: u32) -> Result<f64, Failed> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).map_err(|_| Failed::Process(pid))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kb = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kb.map(|kb| kb / 1024.0).ok_or(Failed::Process(pid))
}

/// Files and connections that the process has open now.
pub fn open_files(pid: u32) -> Result<usize, Failed> {
    fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count).map_err(|_| Failed::Process(pid))
}

/// Counts a process's time on the processors.
pub struct Meter {
    pid: u32,
    ticks: u64,
    since: Instant,
}

pub struct Spent {
    cpu: Duration,
    wall: Duration,
}

impl Spent {
    /// Cores that were busy on average.
    pub fn share(&self) -> f64 {
        self.cpu.as_secs_f64() / self.wall.as_secs_f64().max(1e-9)
    }
}

impl Meter {
    pub fn start(pid: u32) -> Result<Self, Failed> {
        Ok(Self { pid, ticks: ticks(pid)?, since: Instant::now() })
    }

    pub fn stop(&self) -> Result<Spent, Failed> {
        // Linux counts it in hundredths of a second.
        let cpu = Duration::from_millis((ticks(self.pid)? - self.ticks) * 10);
        Ok(Spent { cpu, wall: self.since.elapsed() })
    }
}

/// In user and kernel mode together.
fn ticks(pid: u32) -> Result<u64, Failed> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).map_err(|_| Failed::Process(pid))?;
    // The program's name, in brackets, may hold anything.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok());
    field(11).zip(field(12)).map(|(user, kernel)| user + kernel).ok_or(Failed::Process(pid))
}
