//! The table of workers.

use kiln_api::{RunningView, WorkerView};
use kiln_types::WorkerState;
use ratatui::text::Span;

use super::{
    super::model::FarmSnapshot,
    look::ScreenLook,
    table::{Cell, Column, width},
    words::{ago, percent},
};
use crate::{
    output::{one_line, text::count},
    size::ByteSize,
};

pub fn columns(farm: &FarmSnapshot, now_ms: i64) -> Vec<Column> {
    let workers = &farm.workers;
    let names = workers.iter().map(|worker| width(&worker.name)).max().unwrap_or(0);
    let names = u16::try_from(names).unwrap_or(u16::MAX);
    vec![
        Column::between("WORKER", 0, 8, names.clamp(8, 24)),
        Column::fixed("STATE", 1, workers.iter().map(|worker| worker.state.as_str().len())),
        Column::between("RENDERS", 2, 16, 200),
        Column::fixed("SLOTS", 6, workers.iter().map(|worker| slots(worker).len())).right(),
        Column::fixed("CORES", 4, workers.iter().map(|worker| cores(worker).len())).right(),
        Column::fixed("MEMORY", 5, workers.iter().map(|worker| memory(worker).len())).right(),
        Column::fixed("SEEN", 3, workers.iter().map(|worker| seen(worker, now_ms).len())).right(),
    ]
}

pub fn cells(worker: &WorkerView, farm: &FarmSnapshot, now_ms: i64, look: ScreenLook) -> Vec<Cell> {
    let gone = worker.state == WorkerState::Offline;
    let quiet = if gone { look.dim() } else { ratatui::style::Style::new() };
    vec![
        Cell::text(worker.name.clone(), if gone { quiet } else { look.bold() }),
        Cell::text(worker.state.to_string(), look.worker(worker.state)),
        Cell::Text(renders(worker, farm, look)),
        Cell::text(slots(worker), quiet),
        Cell::text(cores(worker), quiet),
        Cell::text(memory(worker), quiet),
        Cell::text(seen(worker, now_ms), look.dim()),
    ]
}

/// Returns the line below a selected worker.
pub fn detail(worker: &WorkerView, look: ScreenLook) -> Vec<Span<'static>> {
    if let Some(quarantine) = &worker.quarantine {
        let failed_probes = match quarantine.failed_probes {
            0 => String::new(),
            failed_probes => format!("; {} failed", count(failed_probes, "probe")),
        };
        return vec![Span::styled(one_line(&format!("{}{failed_probes}", quarantine.why)), look.bad())];
    }
    let mut said = Vec::new();
    for blender in &worker.blenders {
        let devices = blender.devices.iter().filter(|device| device.class.is_gpu());
        let devices: Vec<String> =
            devices.map(|device| format!("{} {}", device.class, device.name)).collect();
        let devices = if devices.is_empty() { String::new() } else { format!(" ({})", devices.join(", ")) };
        said.push(format!("Blender {}{devices}", blender.version));
    }
    said.dedup();
    if said.is_empty() {
        said.push("no Blender".to_owned());
    }
    if !worker.machine.cpu.is_empty() {
        said.push(worker.machine.cpu.clone());
    }
    if !worker.tags.is_empty() {
        said.push(format!("tags {}", worker.tags.join(", ")));
    }
    vec![Span::styled(one_line(&said.join(" · ")), look.dim())]
}

/// Returns the frame of each slot with its progress, or the reason why the worker does nothing.
fn renders(worker: &WorkerView, farm: &FarmSnapshot, look: ScreenLook) -> Vec<Span<'static>> {
    let mut spans = Vec::new();
    let mut last = None;
    for run in in_slots(worker) {
        if !spans.is_empty() {
            spans.push(Span::styled(" · ", look.dim()));
        }
        if last != Some(run.job) {
            let job = farm.job(run.job).map_or_else(|| format!("job {}", run.job), |job| job.name.clone());
            spans.push(Span::raw(one_line(&format!("{job} "))));
            last = Some(run.job);
        }
        spans.push(Span::raw(
            run.name.frame.map_or_else(|| run.name.kind.to_string(), |frame| frame.to_string()),
        ));
        spans.push(Span::styled(progress(run), look.accent()));
        spans.extend(run.slow.map(|_| Span::styled(" slow", look.warning())));
    }
    match (&worker.quarantine, &worker.unavailable) {
        _ if !spans.is_empty() => {}
        (Some(quarantine), _) => spans.push(Span::styled(one_line(&quarantine.why), look.bad())),
        (None, Some(unavailable)) => spans.push(Span::styled(one_line(&unavailable.why), look.warning())),
        (None, None) => {}
    }
    spans
}

/// Returns the progress of a frame: ` 63%`, or ` ~63%` if it is estimated from other frames.
fn progress(run: &RunningView) -> String {
    let guess = if run.estimated { "~" } else { "" };
    run.fraction.map_or_else(String::new, |part| format!(" {guess}{}", percent(f64::from(part))))
}

fn slots(worker: &WorkerView) -> String {
    if worker.state == WorkerState::Offline {
        return worker.slots.to_string();
    }
    format!("{}/{}", in_slots(worker).count(), worker.slots)
}

/// Returns the last task of each slot. Earlier ones have rendered, and are being uploaded.
fn in_slots(worker: &WorkerView) -> impl Iterator<Item = &RunningView> {
    let running = &worker.running;
    let last = |at: &usize| running.get(at + 1).is_none_or(|next| next.slot != running[*at].slot);
    (0..running.len()).filter(last).map(|at| &running[at])
}

/// Returns the cores that the farm gets, and those of the machine if they are more.
fn cores(worker: &WorkerView) -> String {
    let (gets, has) = (worker.offered.cores, worker.machine.cores);
    if gets == has { has.to_string() } else { format!("{gets}/{has}") }
}

fn memory(worker: &WorkerView) -> String {
    let (gets, has) = (worker.offered.memory, worker.machine.memory);
    let size = |bytes| ByteSize(bytes).to_string();
    let (part, whole) = (size(gets), size(has));
    match (part.split_once(' '), whole.split_once(' ')) {
        _ if gets == has => whole,
        (Some((part, unit)), Some((_, same))) if unit == same => format!("{part}/{whole}"),
        _ => format!("{part} of {whole}"),
    }
}

fn seen(worker: &WorkerView, now_ms: i64) -> String {
    ago(worker.last_seen_ms, now_ms)
}
