//! Simulated workers that speak as real ones do, and what a client sees of a farm of them.

mod measure;
mod runs;
mod swarm;

use kiln_api::{JobSource, JobView, SubmitJob};
use kiln_client::{Client, ClientError};
use kiln_types::{
    BlobHash, Bundle, BundleFile, BundleId, FileFormat, OutputFile, OutputRole, PixelReport, RelPath,
};

pub use measure::Measured;
pub use runs::{lifecycles, million, workers};
pub use swarm::{Nature, Stores};

const SCENE: &[u8] = include_bytes!("../../../../../examples/sample.blend");
const FRAME: &[u8] = b"a frame that is at the server already";

/// A server to be loaded, with a scene and a frame that it holds.
pub struct Target {
    client: Client,
    /// Of the server's process.
    pid: u32,
    bundle: BundleId,
    blend: RelPath,
}

impl Target {
    pub async fn prepare(client: Client, pid: u32) -> Result<Self, Failed> {
        let blend = RelPath::new("sample.blend")?;
        let hash = BlobHash::of(SCENE);
        client.put_blob_bytes(hash, SCENE.into()).await?;
        client.put_blob_bytes(BlobHash::of(FRAME), FRAME.into()).await?;
        let file = BundleFile { path: blend.clone(), hash, size: SCENE.len() as u64 };
        let bundle = client.create_bundle(&Bundle { files: vec![file], ..Bundle::default() }).await?;
        Ok(Self { client, pid, bundle, blend })
    }

    async fn submit(&self, frames: u32) -> Result<JobView, Failed> {
        let source =
            JobSource::Bundle { id: self.bundle, blend: self.blend.clone(), origin: None, file_name: None };
        // All else has defaults.
        let request = serde_json::json!({"source": source, "frames": format!("1-{frames}")});
        let request: SubmitJob =
            serde_json::from_value(request).map_err(|error| Failed::Odd(error.to_string()))?;
        Ok(self.client.submit(&request).await?)
    }
}

/// Returns the output that a frame is said to have delivered.
fn output(frame: i32, bytes: &[u8]) -> Result<OutputFile, Failed> {
    Ok(OutputFile {
        path: RelPath::new(&format!("frame_{frame:07}.png"))?,
        role: OutputRole::Main { view: None },
        hash: BlobHash::of(bytes),
        size: bytes.len() as u64,
        format: FileFormat::Png,
        width: 16,
        height: 16,
        pixels: PixelReport::default(),
    })
}

/// The reasons why a load is not measured.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Path(#[from] kiln_types::BadPath),
    #[error(transparent)]
    Outputs(#[from] kiln_types::OutputSetError),
    #[error("the process {0} cannot be looked at")]
    Process(u32),
    #[error("{0}")]
    Odd(String),
}
