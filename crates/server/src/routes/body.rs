//! Bodies of requests, with a limit on silence, and answers with stored bytes, whole or in part.

use std::{collections::BTreeMap, io, ops::Range, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use kiln_api::ProblemCode;
use kiln_blobs::{Blobs, StreamError};
use kiln_types::BlobHash;
use utoipa::{
    IntoResponses, PartialSchema,
    openapi::{self, ContentBuilder, HeaderBuilder, RefOr, ResponseBuilder},
};

use super::document::{Gone, OutOfRange};
use crate::{
    app::App,
    problem::{Answer, ProblemResponse},
    space::Reservation,
};

/// The headers of a request for a part of some bytes.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it describes headers that are read by hand")]
pub(super) struct RangeHeaders {
    /// One range of the bytes, so that an interrupted download can continue. Any other value is answered with the whole.
    #[param(rename = "Range", example = "bytes=0-99")]
    range: Option<String>,
    /// Applies the range only if the `ETag` is still this one.
    #[param(rename = "If-Range")]
    if_range: Option<String>,
}

/// Returns the answers of a route whose bytes have these types and can be requested in part.
pub(super) fn range_responses(types: &[&str]) -> BTreeMap<String, RefOr<openapi::Response>> {
    let text = |description: &str| {
        HeaderBuilder::new().schema(Some(String::schema())).description(Some(description)).build()
    };
    let answer = |description: &str| {
        let answer = ResponseBuilder::new()
            .description(description)
            .header("ETag", text("The hash of the whole, in quotes."))
            .header("Accept-Ranges", text("`bytes`"))
            .header("Content-Disposition", text("`attachment`: never shown as a page."));
        let content = || ContentBuilder::new().schema(Some(String::schema())).build();
        types.iter().fold(answer, |answer, one| answer.content(*one, content()))
    };
    let part = answer("The requested range")
        .header("Content-Range", text("The position of the range: `bytes FIRST-LAST/SIZE`."));
    let mut all = OutOfRange::responses();
    all.extend(Gone::responses());
    all.insert("200".to_owned(), RefOr::T(answer("The bytes").build()));
    all.insert("206".to_owned(), RefOr::T(part.build()));
    all
}

/// The silence after which a request is aborted.
const SILENCE: Duration = Duration::from_secs(60);
/// Bytes up to which a blob is read, or a body is received, in one piece.
const SMALL: u64 = 1 << 20;

/// Returns the pieces of the body; an error if the sender falls silent.
pub(super) fn patient(body: Body) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::try_unfold(body.into_data_stream(), |mut body| async move {
        match tokio::time::timeout(SILENCE, body.next()).await {
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "nothing came for a minute")),
            Ok(None) => Ok(None),
            Ok(Some(chunk)) => chunk.map(|chunk| Some((chunk, body))).map_err(io::Error::other),
        }
    })
}

/// Reserves room on the disk for each piece of the body; an error if there is none. The reservation outlives the stream:
/// it holds until the bytes are written.
pub(super) fn roomy<'a>(
    pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'a,
    room: &'a mut Reservation,
) -> impl Stream<Item = Result<Bytes, StreamError>> + Send + 'a {
    pieces.map(move |piece| {
        let piece = piece?;
        room.take(piece.len() as u64)?;
        Ok::<_, StreamError>(piece)
    })
}

/// Reserves room for a body, as far as its length is announced.
pub(super) fn room(app: &App, headers: &HeaderMap) -> Answer<Reservation> {
    Ok(app.space.reserve(length(headers).unwrap_or(0))?)
}

/// Returns the whole body if its announced length is small, so that the file of a frame is stored in one step.
pub(super) async fn small(headers: &HeaderMap, body: Body) -> io::Result<Result<Bytes, Body>> {
    let Some(length) = length(headers).filter(|length| *length <= SMALL) else { return Ok(Err(body)) };
    let mut whole = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    let mut chunks = std::pin::pin!(patient(body));
    while let Some(chunk) = chunks.try_next().await? {
        whole.extend_from_slice(&chunk);
    }
    Ok(Ok(whole.into()))
}

/// Returns the announced length of the body.
pub(super) fn length(headers: &HeaderMap) -> Option<u64> {
    number(headers.get(header::CONTENT_LENGTH)?)
}

/// Returns the number of a header that holds only digits.
pub(super) fn number(value: &HeaderValue) -> Option<u64> {
    let text = value.to_str().ok()?;
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Answers with the bytes of a blob, or with the requested range of them.
pub(super) async fn blob(
    blobs: &Blobs,
    hash: &BlobHash,
    headers: &HeaderMap,
    content_type: &'static str,
) -> Answer<Response> {
    let Some(size) = blobs.size(hash).await? else {
        return Err(ProblemResponse::not_found(format!("There is no blob {hash}.")));
    };
    let etag = HeaderValue::try_from(format!("\"{hash}\""))
        .map_err(|error| ProblemResponse::internal("A hash is no header", error))?;
    let fixed = [
        (header::ETAG, etag.clone()),
        (header::ACCEPT_RANGES, HeaderValue::from_static("bytes")),
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        // Browsers must not show a file as a page, whatever it contains.
        (header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment")),
    ];
    let same = headers.get(header::IF_RANGE).is_none_or(|value| *value == etag);
    let range = headers.get(header::RANGE).filter(|_| same).and_then(|value| value.to_str().ok());
    match range.map_or(RequestedRange::Whole, |text| RequestedRange::parse(text, size)) {
        RequestedRange::Whole => {
            let body = bytes_of(blobs, hash, 0..size).await?;
            Ok((StatusCode::OK, fixed, [(header::CONTENT_LENGTH, size)], body).into_response())
        }
        RequestedRange::Part(range) => {
            let place = format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1));
            let length = range.end - range.start;
            let body = bytes_of(blobs, hash, range).await?;
            let part = [(header::CONTENT_RANGE, place), (header::CONTENT_LENGTH, length.to_string())];
            Ok((StatusCode::PARTIAL_CONTENT, fixed, part, body).into_response())
        }
        RequestedRange::Beyond => {
            let why = format!("The range lies beyond the {size} bytes of this file.");
            let fault = ProblemResponse::new(ProblemCode::RangeNotSatisfiable, why);
            Ok(([(header::CONTENT_RANGE, format!("bytes */{size}"))], fault).into_response())
        }
    }
}

async fn bytes_of(blobs: &Blobs, hash: &BlobHash, range: Range<u64>) -> Answer<Body> {
    let length = range.end - range.start;
    let pieces = blobs.stream(hash, range).await?;
    if length > SMALL {
        return Ok(Body::from_stream(pieces));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    let mut pieces = std::pin::pin!(pieces);
    while let Some(piece) = pieces.try_next().await? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes.into())
}

/// The range of a `Range` header. Several ranges, and other units, are answered with the whole.
#[derive(Debug, PartialEq, Eq)]
enum RequestedRange {
    Whole,
    Part(Range<u64>),
    Beyond,
}

impl RequestedRange {
    fn parse(text: &str, size: u64) -> Self {
        let Some((first, last)) = text.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
            return Self::Whole;
        };
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            if digits { text.parse::<u64>().ok() } else { None }
        };
        let (first, last) = match (number(first), number(last)) {
            (None, Some(count)) if first.is_empty() => (size.saturating_sub(count), size),
            (Some(first), None) if last.is_empty() => (first, size),
            (Some(first), Some(last)) if first <= last => (first, last.saturating_add(1).min(size)),
            _ => return Self::Whole,
        };
        if first >= size { Self::Beyond } else { Self::Part(first..last) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        use RequestedRange::{Beyond, Part, Whole};
        let check = |text, range| assert_eq!(RequestedRange::parse(text, 100), range, "{text}");
        check("bytes=0-", Part(0..100));
        check("bytes=10-19", Part(10..20));
        check("bytes=90-1000", Part(90..100));
        check("bytes=-5", Part(95..100));
        check("bytes=-500", Part(0..100));
        check("bytes=100-", Beyond);
        check("bytes=-0", Beyond);
        for whole in ["", "bytes=", "bytes=-", "bytes=5-1", "bytes=1-2,4-5", "lines=1-2", "bytes=+1-2"] {
            check(whole, Whole);
        }
        assert_eq!(RequestedRange::parse("bytes=0-", 0), Beyond);
    }
}
