//! The commands, each in a file.

pub mod attach;
pub mod blender;
pub mod bundle;
mod failures;
pub mod inspect;
pub mod jobs;
pub mod render;
pub mod server;
pub mod service;
pub mod shares;
pub mod small;
pub mod submit;
pub mod worker;
pub mod workers;

use kiln_api::JobReport;

use crate::{
    args::{FarmArgs, GlobalArgs, JobArgs},
    exit::Outcome,
    output::{
        Output,
        table::table,
        text::{count, measured},
    },
    settings::{Flags, Settings},
};

/// The context of every command.
pub struct Context {
    pub output: Output,
    pub global: GlobalArgs,
}

impl Context {
    /// The flags that all commands share.
    pub fn flags(&self, farm: &FarmArgs) -> Flags {
        Flags::default().and(&self.global.data).and(farm)
    }

    /// The flags of a command that makes a job.
    pub fn job_flags(&self, farm: &FarmArgs, job: &JobArgs) -> Flags {
        self.flags(farm).and(&job.settings.device).and(&job.scheduling.account)
    }

    /// The settings of a command that has no flags of its own beyond these.
    pub fn settings(&self, farm: &FarmArgs) -> Outcome<Settings> {
        Settings::resolve(self.flags(farm))
    }
}

/// Returns a table with a row for each worker, and the total.
pub fn closing_table(report: &JobReport) -> String {
    let rows = report.workers.iter().map(|share| {
        vec![
            share.worker.clone(),
            share.frames.to_string(),
            share.errors.to_string(),
            format!("{:.1}", share.seconds),
            format!("{:.0}%", share.share * 100.0),
        ]
    });
    let frames: u32 = report.workers.iter().map(|share| share.frames).sum();
    let table = table(&["WORKER", ">FRAMES", ">ERRORS", ">SECONDS", ">SHARE"], rows);
    if frames == 0 {
        return table;
    }
    let total = format!("{} in {}", count(frames, "frame"), measured(report.wall_s));
    if report.workers.len() > 1 && report.gain > 0.0 && report.gain.is_finite() {
        format!("{table}\n\n{total}, {:.2} times as fast as the best worker alone", report.gain)
    } else {
        format!("{table}\n\n{total}")
    }
}
