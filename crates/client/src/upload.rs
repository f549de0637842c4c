//! Requests with bytes. They are aborted if nothing moves, and may take any time while something does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStream, TryStreamExt, stream};
use reqwest::{Body, RequestBuilder, Response, header};

use crate::{Client, ClientError};

/// A connection on which no byte moves for this long, or for at most twice as long, is lost.
const SILENCE: Duration = Duration::from_secs(60);
/// Bytes that the slowest server reads and hashes, or flushes to its disk, in a second.
const SLOWEST: u64 = 16 << 20;
/// Bytes of a piece, which must move within [`SILENCE`].
const PIECE: usize = 64 << 10;

/// The times for which an upload may be silent.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// The time while bytes are sent.
    sending: Duration,
    /// The time after the last byte.
    answer: Duration,
}

impl Patience {
    fn for_work(bytes: u64) -> Self {
        Self { sending: SILENCE, answer: SILENCE + Duration::from_secs(bytes / SLOWEST) }
    }
}

impl Client {
    /// Sends a body of `size` bytes. The server has to process `work` bytes before it answers.
    pub(crate) async fn upload<S>(
        &self,
        request: RequestBuilder,
        (size, body): (u64, S),
        work: u64,
    ) -> Result<Response, ClientError>
    where
        S: TryStream<Ok = Bytes> + Send + 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.upload_within(Patience::for_work(work), request, (size, body)).await
    }

    async fn upload_within<S>(
        &self,
        patience: Patience,
        request: RequestBuilder,
        (size, body): (u64, S),
    ) -> Result<Response, ClientError>
    where
        S: TryStream<Ok = Bytes> + Send + 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let taken = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&taken);
        let body = body.into_stream().inspect(move |piece| {
            let bytes = piece.as_ref().map_or(0, Bytes::len);
            count.fetch_add(bytes as u64, Ordering::Relaxed);
        });
        let request = request
            .header(header::CONTENT_TYPE, kiln_api::BINARY)
            .header(header::CONTENT_LENGTH, size)
            .body(Body::wrap_stream(body));
        tokio::select! {
            answer = self.send(request) => answer,
            () = silence(&taken, size, patience) => {
                Err(ClientError::Unreachable { url: self.url().to_owned(), why: "no answer in time".to_owned() })
            }
        }
    }
}

/// Waits until nothing has moved for the given time.
async fn silence(taken: &AtomicU64, size: u64, patience: Patience) {
    loop {
        let before = taken.load(Ordering::Relaxed);
        tokio::time::sleep(if before < size { patience.sending } else { patience.answer }).await;
        if taken.load(Ordering::Relaxed) == before {
            return;
        }
    }
}

/// Makes a body of bytes in memory.
pub(crate) fn in_pieces(
    bytes: Bytes,
) -> (u64, impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send + 'static) {
    let size = bytes.len() as u64;
    let pieces = stream::unfold(bytes, |mut bytes| async move {
        let piece = bytes.split_to(PIECE.min(bytes.len()));
        (!piece.is_empty()).then_some((Ok(piece), bytes))
    });
    (size, pieces)
}

#[cfg(test)]
mod tests {
    use reqwest::Method;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    const SHORT: Patience =
        Patience { sending: Duration::from_millis(1500), answer: Duration::from_millis(1500) };

    async fn upload(listener: &TcpListener, bytes: usize) -> Result<Response, ClientError> {
        let url = format!("http://{}", listener.local_addr().unwrap());
        let client = Client::new(url, "key").unwrap();
        let request = client.bulk_request(Method::PUT, "/");
        client.upload_within(SHORT, request, in_pieces(vec![7; bytes].into())).await
    }

    #[tokio::test]
    async fn an_upload_to_a_silent_server_is_aborted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // More than any buffer on the way holds, and so little that all of it is gone at once.
        for bytes in [256 << 20, 10] {
            let error = upload(&listener, bytes).await.unwrap_err();
            assert!(error.is_transient(), "{error}");
            assert!(error.to_string().contains("no answer in time"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_slow_server_is_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let serve = async {
            let (mut line, _) = listener.accept().await.unwrap();
            // However much the system holds ready, a read takes little of it.
            let mut buffer = vec![0; 512 << 10];
            let begun = std::time::Instant::now();
            let mut left = 24_usize << 20;
            while left > 0 {
                left = left.saturating_sub(line.read(&mut buffer).await.unwrap());
                // Several times as long as silence may last, in all.
                if begun.elapsed() < SHORT.sending * 3 {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            line.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            assert!(begun.elapsed() > SHORT.sending * 2);
            line
        };
        let (_line, answer) = tokio::join!(serve, upload(&listener, 24 << 20));
        assert_eq!(answer.unwrap().status(), 204);
    }
}
