#![cfg_attr(test, allow(clippy::unwrap_used))]
//! The client of a Kiln server: the HTTP API, the stream of events, the WebSocket of a worker, and submissions from the
//! .blend to the frames.

mod backoff;
mod blobs;
mod chunks;
mod content;
mod error;
mod events;
mod existing;
mod extras;
mod fetch;
mod folder;
mod hash_cache;
mod http;
mod jobs;
mod link;
mod made;
mod manifest;
mod naming;
mod prepared;
mod reading;
mod request;
mod routes;
mod send;
mod shares;
pub mod submission;
mod template;
mod tries;
mod upload;

pub use backoff::Backoff;
pub use blobs::BlobStream;
pub use chunks::FrameStream;
pub use error::ClientError;
pub use events::EventStream;
pub use existing::{
    Existing, ExistingError, ExistingFiles, ToRender, find_frames_to_render, recorded_device,
};
pub use extras::{Extras, ExtrasError, FoundExtras};
pub use fetch::{FetchError, FetchResult, FetchedFrame, Fetcher};
pub use folder::{OutFolder, Stamp};
pub use hash_cache::HashCache;
pub use http::Client;
pub use jobs::{AttemptFilter, JobFilter};
pub use link::{LinkReceiver, LinkSender, WorkerLink};
pub use made::FrameIdentity;
pub use manifest::Manifest;
pub use naming::{NamedFor, Naming, Variables};
pub use prepared::Prepared;
pub use reading::hash_file;
pub use request::{PrepareError, Request, Transfer};
pub use send::UploadProgress;
