//! The reasons why a submission stops.

use std::{io, path::PathBuf};

use kiln_api::WaitReason;
use kiln_types::{DeviceClass, JobId};

use super::variant::VariantError;
use crate::{ClientError, ExistingError, FetchError, PrepareError};

/// An error of a submission. It prints as one sentence: what happened and what to do next.
#[derive(Debug, thiserror::Error)]
pub enum SubmissionError {
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Existing(#[from] ExistingError),
    #[error(transparent)]
    Variant(#[from] VariantError),
    #[error("frames cannot be written into {} ({reason}); choose another folder with --out", .out.display())]
    Folder { out: PathBuf, reason: String },
    #[error(
        "{} cannot be read ({source}); check its permissions, or choose another folder with --out",
        .path.display()
    )]
    Manifest { path: PathBuf, source: io::Error },
    #[error(
        "--gpus and --gpu-memory are for GPUs, and this renders on the CPU; choose GPUs with --device gpu"
    )]
    GpusOnCpu,
    #[error(
        "Blender {blender} finds no {} on this machine; it has: {} (choose one with --device, or render on a farm)",
        lacking(.device),
        named(.there)
    )]
    NoDevice { blender: String, device: DeviceClass, there: Vec<&'static str> },
    /// Blender does not say which devices it can use.
    #[error("{0}")]
    Devices(String),
    /// A job inside this caller waits for something that this machine lacks, so it would wait without end.
    #[error("{0}")]
    NothingHere(WaitReason),
    #[error("job {0} was deleted while this command waited for it")]
    Deleted(JobId),
    #[error(
        "the server no longer has frame {frame}; `kiln jobs rerender {job}` renders it again while the job's files \
         are there (`kiln jobs show {job}`)"
    )]
    FrameGone { job: JobId, frame: i32 },
    #[error("{what} ended early ({reason}); run the command again")]
    BrokenOff { what: &'static str, reason: String },
}

fn lacking(device: &DeviceClass) -> String {
    match device {
        DeviceClass::Gpu => "GPU that it can use".to_owned(),
        backend => format!("{backend} device"),
    }
}

fn named(devices: &[&str]) -> String {
    if devices.is_empty() { "cpu".to_owned() } else { devices.join(", ") }
}

impl SubmissionError {
    pub(crate) fn broken_off(what: &'static str) -> impl FnOnce(tokio::task::JoinError) -> Self {
        move |error| Self::BrokenOff { what, reason: error.to_string() }
    }
}
