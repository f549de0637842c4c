//! Bytes to and from the server, by their hash.

use std::{io, path::Path, pin::Pin};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use kiln_api::{BundleCreated, MissingAnswer, MissingQuery};
use kiln_types::{BlobHash, Bundle, BundleId};
use reqwest::{Method, StatusCode, header};
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use crate::{Client, ClientError, routes, tries::Tries, upload::in_pieces};

/// The bytes of a blob. A connection that breaks is opened again: an error here is final.
pub type BlobStream = Pin<Box<dyn Stream<Item = Result<Bytes, ClientError>> + Send>>;

/// The most hashes of one request.
const MISSING_AT_ONCE: usize = 10_000;
const READ_PIECE: usize = 64 * 1024;

impl Client {
    /// Returns the size of a blob in bytes, and its bytes. If the connection breaks, the rest is requested by range.
    /// The hash is *not* checked here: the caller hashes the bytes as it stores them.
    pub async fn get_blob(&self, hash: BlobHash) -> Result<(u64, BlobStream), ClientError> {
        self.get_blob_from(hash, 0).await
    }

    /// Returns the bytes of a blob from a position on; the size is that of the whole blob.
    pub async fn get_blob_from(&self, hash: BlobHash, offset: u64) -> Result<(u64, BlobStream), ClientError> {
        let (size, body) = self.open_blob(hash, offset).await?;
        let state = Download {
            client: self.clone(),
            hash,
            size,
            at: offset,
            body: Some(body),
            tries: Tries::default(),
        };
        Ok((size, Box::pin(stream::unfold(Some(state), |state| async move { state?.next().await }))))
    }

    async fn open_blob(
        &self,
        hash: BlobHash,
        offset: u64,
    ) -> Result<(u64, Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>), ClientError> {
        let mut request = self.request(Method::GET, &routes::blob(hash));
        if offset > 0 {
            request = request.header(header::RANGE, format!("bytes={offset}-"));
        }
        let response = self.send(request).await?;
        let broken = |why: &str| ClientError::Broken { url: self.url().to_owned(), why: why.to_owned() };
        let whole = if response.status() == StatusCode::PARTIAL_CONTENT {
            response
                .headers()
                .get(header::CONTENT_RANGE)
                .and_then(|value| value.to_str().ok())
                .and_then(|value| value.rsplit_once('/')?.1.parse().ok())
                .ok_or_else(|| broken("a range without its size"))?
        } else {
            response.content_length().ok_or_else(|| broken("a blob without its size"))?
        };
        let skip = if response.status() == StatusCode::PARTIAL_CONTENT { 0 } else { offset };
        let body = response.bytes_stream();
        Ok((whole, if skip == 0 { Box::pin(body) } else { Box::pin(skipped(body, skip)) }))
    }

    /// Stores the bytes of a file that was hashed before. Fails if the file has changed.
    pub async fn put_blob_file(&self, hash: BlobHash, size: u64, path: &Path) -> Result<(), ClientError> {
        let file =
            tokio::fs::File::open(path).await.map_err(|error| ClientError::file(path, "read", error))?;
        let length = file.metadata().await.map_err(|error| ClientError::file(path, "read", error))?.len();
        if length != size {
            return Err(ClientError::Changed { path: path.to_owned() });
        }
        let body = ReaderStream::with_capacity(file.take(size), READ_PIECE);
        self.put_stream(hash, size, path, body).await
    }

    pub(crate) async fn put_stream(
        &self,
        hash: BlobHash,
        size: u64,
        path: &Path,
        body: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), ClientError> {
        let request = self.bulk_request(Method::PUT, &routes::blob(hash));
        match self.upload(request, (size, body), size).await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some(kiln_api::ProblemCode::HashMismatch) => {
                Err(ClientError::Changed { path: path.to_owned() })
            }
            Err(error) => Err(error),
        }
    }

    /// Stores bytes that are in memory.
    pub async fn put_blob_bytes(&self, hash: BlobHash, bytes: Bytes) -> Result<(), ClientError> {
        let (work, request) = (bytes.len() as u64, self.bulk_request(Method::PUT, &routes::blob(hash)));
        self.upload(request, in_pieces(bytes), work).await.map(drop)
    }

    /// Returns those of the blobs that the server lacks.
    pub async fn missing(&self, hashes: &[BlobHash]) -> Result<Vec<BlobHash>, ClientError> {
        let mut missing = Vec::new();
        for part in hashes.chunks(MISSING_AT_ONCE) {
            let query = MissingQuery { hashes: part.to_vec() };
            let answer: MissingAnswer = self.post(&routes::blobs_missing(), &query).await?;
            missing.extend(answer.missing);
        }
        Ok(missing)
    }

    /// Reads the manifest of a bundle, and checks it against its id.
    pub async fn bundle(&self, id: BundleId) -> Result<Bundle, ClientError> {
        let bundle: Bundle = self.get(&routes::bundle(id)).await?;
        if bundle.id() == id { Ok(bundle) } else { Err(ClientError::Damaged { hash: id.0 }) }
    }

    /// Creates a bundle of blobs that the server has.
    pub async fn create_bundle(&self, bundle: &Bundle) -> Result<BundleId, ClientError> {
        let created: BundleCreated = self.post(&routes::bundles(), bundle).await?;
        Ok(created.id)
    }
}

struct Download {
    client: Client,
    hash: BlobHash,
    size: u64,
    /// The position of the next byte.
    at: u64,
    body: Option<Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>>,
    /// The failures since the last progress.
    tries: Tries,
}

impl Download {
    async fn next(mut self) -> Option<(Result<Bytes, ClientError>, Option<Self>)> {
        loop {
            if self.at >= self.size {
                return None;
            }
            let broken =
                |why: &str| ClientError::Broken { url: self.client.url().to_owned(), why: why.to_owned() };
            let failed = match &mut self.body {
                Some(body) => match body.next().await {
                    Some(Ok(bytes)) => {
                        self.tries.progress();
                        self.at += bytes.len() as u64;
                        if self.at > self.size {
                            return Some((Err(broken("a blob longer than its size")), None));
                        }
                        return Some((Ok(bytes), Some(self)));
                    }
                    Some(Err(error)) => self.client.unreachable(&error),
                    None => broken("a blob that ended early"),
                },
                None => match self.client.open_blob(self.hash, self.at).await {
                    Ok((size, body)) if size == self.size => {
                        self.body = Some(body);
                        continue;
                    }
                    Ok(_) => return Some((Err(ClientError::Damaged { hash: self.hash }), None)),
                    Err(error) => error,
                },
            };
            self.body = None;
            if !self.tries.again(&failed).await {
                return Some((Err(failed), None));
            }
        }
    }
}

/// Returns a body without its first bytes, for a server that answers a range with the whole blob.
fn skipped(
    body: impl Stream<Item = reqwest::Result<Bytes>> + Send,
    skip: u64,
) -> impl Stream<Item = reqwest::Result<Bytes>> + Send {
    let mut left = skip;
    body.map(move |piece| {
        piece.map(|mut bytes| {
            let cut = left.min(bytes.len() as u64);
            left -= cut;
            // `cut` is at most a length in memory.
            bytes.split_off(cut as usize)
        })
    })
}
