//! Chunks to and from the server.

use std::{collections::VecDeque, pin::Pin};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use kiln_api::{BINARY, CHUNKS_AT_ONCE, HASHES_AT_ONCE, ProblemCode};
use kiln_chunks::{FrameDecoder, Recipe};
use kiln_types::BlobHash;
use reqwest::{Method, Response, StatusCode, header};

use crate::{Client, ClientError, routes, tries::Tries, upload::in_pieces};

impl Client {
    /// Returns the chunks that the server lacks. It keeps the others for as long as an upload may take.
    pub async fn missing_chunks(&self, hashes: &[BlobHash]) -> Result<Vec<BlobHash>, ClientError> {
        let mut missing = Vec::new();
        for part in hashes.chunks(HASHES_AT_ONCE) {
            let response = self.binary(Method::POST, &routes::chunks_missing(), packed(part)).await?;
            let body = response.bytes().await.map_err(|error| self.unreachable(&error))?;
            let (hashes, rest) = body.as_chunks::<32>();
            if !rest.is_empty() || hashes.len() > part.len() {
                return Err(self.unusable("not a list of hashes"));
            }
            missing.extend(hashes.iter().map(|hash| BlobHash::from_bytes(*hash)));
        }
        Ok(missing)
    }

    /// Stores chunks, each in a frame. If the request breaks off, the whole frames before are stored.
    pub async fn put_frames(&self, frames: Bytes) -> Result<(), ClientError> {
        let (work, request) = (frames.len() as u64, self.bulk_request(Method::POST, &routes::chunks()));
        self.upload(request, in_pieces(frames), work).await.map(drop)
    }

    /// Makes a blob of chunks that the server has, and waits until it has hashed them.
    ///
    /// # Errors
    /// [`kiln_api::ProblemCode::Conflict`] if the server lacks one of them.
    pub async fn put_recipe(&self, hash: BlobHash, recipe: &Recipe) -> Result<(), ClientError> {
        let request = self.bulk_request(Method::PUT, &routes::blob_chunks(hash));
        self.upload(request, in_pieces(recipe.to_bytes().into()), recipe.size()).await.map(drop)
    }

    /// Returns the chunks of a blob; `None` if the server keeps it whole, or does not have it.
    pub async fn recipe(&self, hash: BlobHash) -> Result<Option<Recipe>, ClientError> {
        let response = match self.send(self.request(Method::GET, &routes::blob_chunks(hash))).await {
            Err(error) if error.code() == Some(ProblemCode::NotFound) => return Ok(None),
            response => response?,
        };
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        let body = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        Recipe::from_bytes(&body).map(Some).map_err(|error| self.unusable(&error.to_string()))
    }

    /// Returns the frames of chunks in their order; each piece contains whole frames. The bytes are *not* checked here: the
    /// caller does that as it unpacks them. Requests are repeated after a broken connection: an error is final.
    pub async fn fetch_chunks(&self, hashes: Vec<BlobHash>) -> Result<FrameStream, ClientError> {
        let mut fetch =
            Fetch { client: self.clone(), left: hashes.into(), body: None, tries: Tries::default() };
        // A request that cannot succeed fails here.
        fetch.ask().await?;
        Ok(Box::pin(stream::unfold(Some(fetch), |fetch| async move { fetch?.next().await })))
    }

    async fn binary(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Response, ClientError> {
        self.send(self.request(method, path).header(header::CONTENT_TYPE, BINARY).body(body)).await
    }

    fn unusable(&self, why: &str) -> ClientError {
        ClientError::Broken { url: self.url().to_owned(), why: why.to_owned() }
    }
}

fn packed(hashes: &[BlobHash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| *hash.as_bytes()).collect()
}

/// Frames, one after another.
pub type FrameStream = Pin<Box<dyn Stream<Item = Result<Bytes, ClientError>> + Send>>;

struct Fetch {
    client: Client,
    /// Chunks that have not arrived.
    left: VecDeque<BlobHash>,
    body: Option<Body>,
    /// The failures since the last progress.
    tries: Tries,
}

/// An answer that is being received.
struct Body {
    bytes: Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>,
    decoder: FrameDecoder,
    /// Chunks of it that have not arrived.
    due: usize,
}

impl Fetch {
    async fn ask(&mut self) -> Result<(), ClientError> {
        let asked: Vec<u8> =
            self.left.iter().take(CHUNKS_AT_ONCE).flat_map(|hash| *hash.as_bytes()).collect();
        let due = asked.len() / 32;
        let response = self.client.binary(Method::POST, &routes::chunks_fetch(), asked).await?;
        let bytes = Box::pin(response.bytes_stream());
        self.body = Some(Body { bytes, decoder: FrameDecoder::default(), due });
        Ok(())
    }

    async fn next(mut self) -> Option<(Result<Bytes, ClientError>, Option<Self>)> {
        while !self.left.is_empty() {
            let failed = match self.next_frames().await {
                Ok(frames) if frames.is_empty() => continue,
                Ok(frames) => {
                    self.tries.progress();
                    return Some((Ok(frames), Some(self)));
                }
                Err(error) => error,
            };
            self.body = None;
            if !self.tries.again(&failed).await {
                return Some((Err(failed), None));
            }
        }
        None
    }

    /// Returns the frames that the next piece of the answer completes.
    async fn next_frames(&mut self) -> Result<Bytes, ClientError> {
        let Some(body) = self.body.as_mut().filter(|body| body.due > 0) else {
            self.ask().await?;
            return Ok(Bytes::new());
        };
        let unusable = |why: &str| self.client.unusable(why);
        match body.bytes.next().await {
            Some(Ok(piece)) => body.decoder.push(&piece),
            Some(Err(error)) => return Err(self.client.unreachable(&error)),
            None => return Err(unusable("chunks that ended early")),
        }
        let mut whole = Vec::new();
        while body.due > 0 {
            let why = match body.decoder.take() {
                Ok(None) => break,
                Ok(Some(frame)) if self.left.front() == Some(&frame.chunk().hash) => {
                    self.left.pop_front();
                    body.due -= 1;
                    frame.write_to(&mut whole).map_err(|error| unusable(&error.to_string()))?;
                    continue;
                }
                Ok(Some(_)) => "another chunk than was asked for".to_owned(),
                Err(error) => error.to_string(),
            };
            if whole.is_empty() {
                return Err(unusable(&why));
            }
            // The frames before are good; the rest is requested again.
            self.body = None;
            break;
        }
        Ok(whole.into())
    }
}
