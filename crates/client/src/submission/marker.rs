//! The jobs that this machine submitted, with the folders that their frames go to.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use kiln_api::JobView;
use kiln_files::{Access, Durability, write_atomically};
use kiln_types::{BlobHash, JobId};
use serde::{Deserialize, Serialize};

use crate::Existing;

/// A job that this machine submitted: a file in `jobs` below the data folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    pub server: String,
    pub job: JobId,
    /// The time of the job, which differs if another farm has the address now.
    pub created_ms: i64,
    #[serde(with = "kiln_types::paths::exact")]
    pub out: PathBuf,
    /// The .blend's name without its ending, which is the name of the manifest.
    pub blend: String,
    pub existing: Existing,
}

impl Marker {
    pub fn save(&self, data: &Path) -> io::Result<()> {
        let folder = data.join("jobs");
        fs::create_dir_all(&folder)?;
        let path = place(data, &self.server, self.job);
        write_atomically(&path, &serde_json::to_vec(self)?, Access::Usual, Durability::Durable)
    }

    /// Reads the marker of a job, if there is one.
    pub fn load(data: &Path, server: &str, job: &JobView) -> Option<Self> {
        let bytes = fs::read(place(data, server, job.id)).ok()?;
        let marker: Self = serde_json::from_slice(&bytes).ok()?;
        (marker.created_ms == job.created_ms).then_some(marker)
    }

    /// Returns the markers of jobs of this server and .blend whose frames go to this folder, by its real path. The earliest job
    /// comes first.
    pub fn of_output(data: &Path, server: &str, out: &Path, blend: &str) -> Vec<Self> {
        let Ok(entries) = fs::read_dir(data.join("jobs")) else { return Vec::new() };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let read = |path: PathBuf| serde_json::from_slice::<Self>(&fs::read(path).ok()?).ok();
        let json = paths.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
        let mut found: Vec<Self> = json
            .filter_map(read)
            .filter(|marker| marker.server == server && marker.blend == blend)
            .filter(|marker| marker.out == out || marker.out.canonicalize().is_ok_and(|real| real == out))
            .collect();
        found.sort_by_key(|marker| marker.job);
        found
    }

    /// Removes the marker, when nothing of the job is left to fetch.
    pub fn forget(&self, data: &Path) {
        let _ = fs::remove_file(place(data, &self.server, self.job));
    }
}

fn place(data: &Path, server: &str, job: JobId) -> PathBuf {
    let farm = BlobHash::of(server.as_bytes()).to_string();
    data.join("jobs").join(format!("{}-{job}.json", &farm[..12]))
}
