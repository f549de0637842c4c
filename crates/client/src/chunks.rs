//! Chunks to and from the server.

use std::{collections::VecDeque, fmt, pin::Pin, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use kiln_api::{BINARY, HASHES_AT_ONCE};
use kiln_chunks::{Frame, FrameDecoder, FrameError, Recipe};
use kiln_types::BlobHash;
use reqwest::{Method, Response, StatusCode, header};

use crate::{Client, ClientError, routes};

/// A body of frames that has not arrived after so long is given up: then its line is dead.
const FRAMES_TIME: Duration = Duration::from_secs(15 * 60);

impl Client {
    /// Which of these chunks the server lacks. It promises to keep the others for as long as an upload may take.
    ///
    /// # Errors
    /// Where the server cannot be reached or refuses.
    pub async fn missing_chunks(&self, hashes: &[BlobHash]) -> Result<Vec<BlobHash>, ClientError> {
        let mut missing = Vec::new();
        for part in hashes.chunks(HASHES_AT_ONCE) {
            let response = self.binary(Method::POST, &routes::chunks_missing(), packed(part)).await?;
            let body = response.bytes().await.map_err(|error| self.unreachable(&error))?;
            let (hashes, rest) = body.as_chunks::<32>();
            if !rest.is_empty() || hashes.len() > part.len() {
                return Err(self.nonsense("no list of hashes"));
            }
            missing.extend(hashes.iter().map(|hash| BlobHash::from_bytes(*hash)));
        }
        Ok(missing)
    }

    /// Stores chunks: frames, one after another. Where the request breaks off, those that were whole are stored.
    ///
    /// # Errors
    /// Where the server cannot be reached or does not take them.
    pub async fn put_frames(&self, frames: Bytes) -> Result<(), ClientError> {
        let request = self
            .bulk_request(Method::POST, &routes::chunks())
            .header(header::CONTENT_TYPE, BINARY)
            .timeout(FRAMES_TIME)
            .body(frames);
        self.send(request).await.map(drop)
    }

    /// Makes a blob of chunks that the server has. Takes as long as the server needs to hash them.
    ///
    /// # Errors
    /// [`kiln_api::ProblemCode::Conflict`] where it lacks one of them.
    pub async fn put_recipe(&self, hash: BlobHash, recipe: &Recipe) -> Result<(), ClientError> {
        let request = self
            .bulk_request(Method::PUT, &routes::blob_chunks(hash))
            .header(header::CONTENT_TYPE, BINARY)
            .body(recipe.to_bytes());
        self.send(request).await.map(drop)
    }

    /// The chunks of a blob; `None` where the server keeps it whole.
    ///
    /// # Errors
    /// Where the server does not have it or cannot be reached.
    pub async fn recipe(&self, hash: BlobHash) -> Result<Option<Recipe>, ClientError> {
        let response = self.send(self.request(Method::GET, &routes::blob_chunks(hash))).await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        let body = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        Recipe::from_bytes(&body).map(Some).map_err(|error| self.nonsense(&error.to_string()))
    }

    /// Chunks, in this order: at most [`kiln_api::CHUNKS_AT_ONCE`]. Their bytes are *not* checked here: whoever
    /// unpacks them does it.
    ///
    /// # Errors
    /// Where the server lacks one or cannot be reached.
    pub async fn fetch_chunks(&self, hashes: &[BlobHash]) -> Result<FrameStream, ClientError> {
        let response = self.binary(Method::POST, &routes::chunks_fetch(), packed(hashes)).await?;
        let (client, body) = (self.clone(), Box::pin(response.bytes_stream()));
        Ok(FrameStream {
            client,
            body,
            decoder: FrameDecoder::default(),
            left: VecDeque::from_iter(hashes.iter().copied()),
        })
    }

    async fn binary(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Response, ClientError> {
        self.send(self.request(method, path).header(header::CONTENT_TYPE, BINARY).body(body)).await
    }

    fn nonsense(&self, why: &str) -> ClientError {
        ClientError::Broken { url: self.url().to_owned(), why: why.to_owned() }
    }
}

fn packed(hashes: &[BlobHash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| *hash.as_bytes()).collect()
}

/// Chunks as they arrive.
pub struct FrameStream {
    client: Client,
    body: Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>,
    decoder: FrameDecoder,
    /// Those that are still to come.
    left: VecDeque<BlobHash>,
}

impl FrameStream {
    /// The next chunk; `None` behind the last that was asked for.
    ///
    /// # Errors
    /// Where the connection breaks or something else arrives.
    pub async fn next(&mut self) -> Result<Option<Frame>, ClientError> {
        let bad = |client: &Client, error: FrameError| client.nonsense(&error.to_string());
        loop {
            if let Some(frame) = self.decoder.take().map_err(|error| bad(&self.client, error))? {
                if self.left.pop_front() != Some(frame.chunk().hash) {
                    return Err(self.client.nonsense("another chunk than was asked for"));
                }
                return Ok(Some(frame));
            }
            if self.left.is_empty() {
                return Ok(None);
            }
            match self.body.next().await {
                Some(Ok(piece)) => self.decoder.push(&piece),
                Some(Err(error)) => return Err(self.client.unreachable(&error)),
                None => return Err(self.client.nonsense("it ended early")),
            }
        }
    }
}

impl fmt::Debug for FrameStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameStream").field("left", &self.left.len()).finish_non_exhaustive()
    }
}
