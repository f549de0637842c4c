//! The errors that clients see, as problem details (RFC 9457).

use std::{any::Any, fmt::Display, time::Duration};

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request, rejection::BytesRejection},
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use kiln_api::{PROBLEM_JSON, Problem, ProblemCode};
use kiln_blobs::BlobError;
use kiln_chunks::FrameError;
use kiln_store::StoreError;
use kiln_types::BadName;
use serde::de::DeserializeOwned;

use crate::strict;

/// The time within which a JSON body must arrive. Bodies of frames and scenes only have to keep flowing.
const BODY_TIME: Duration = Duration::from_secs(120);

/// The error of a handler, as the caller sees it. Details that only the log may hold are logged when it is made.
#[derive(Debug)]
pub(crate) struct ProblemResponse(pub Box<Problem>);

pub(crate) type Answer<T> = Result<T, ProblemResponse>;
pub(crate) type JsonAnswer<T> = Answer<axum::Json<T>>;

impl ProblemResponse {
    pub(crate) fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self(Box::new(Problem::new(code, detail)))
    }

    pub(crate) fn bad(detail: impl Into<String>) -> Self {
        Self::new(ProblemCode::BadRequest, detail)
    }

    /// For requests that are well formed and cannot be fulfilled; those that break the OpenAPI document are
    /// [`ProblemResponse::bad`].
    pub(crate) fn unprocessable(detail: impl Into<String>) -> Self {
        Self::new(ProblemCode::Unprocessable, detail)
    }

    pub(crate) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(ProblemCode::Conflict, detail)
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(ProblemCode::NotFound, detail)
    }

    /// Logs the cause, which the caller does not see.
    pub(crate) fn internal(what: &str, error: impl Display) -> Self {
        tracing::error!(%error, "{what}");
        Self::new(ProblemCode::Internal, format!("{what}; the server's log says more."))
    }
}

impl From<BadName> for ProblemResponse {
    fn from(error: BadName) -> Self {
        Self::bad(sentence(&error))
    }
}

/// Makes a sentence of an error: a capital letter first, a full stop last.
pub(crate) fn sentence(error: &impl Display) -> String {
    let text = error.to_string();
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    let stop = if text.ends_with('.') { "" } else { "." };
    format!("{first}{}{stop}", chars.as_str())
}

impl IntoResponse for ProblemResponse {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self.0).unwrap_or_default();
        let mut response = (status, body).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        let own = match self.0.code {
            ProblemCode::Unauthorized => (header::WWW_AUTHENTICATE, "Bearer"),
            ProblemCode::UpgradeRequired => (header::UPGRADE, "websocket"),
            ProblemCode::Busy => (header::RETRY_AFTER, "5"),
            _ => return response,
        };
        response.headers_mut().insert(own.0, HeaderValue::from_static(own.1));
        response
    }
}

/// A JSON body. Unlike axum's own, it answers with problem details and does not check the content type: web pages are kept
/// out by their Origin.
pub(crate) struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = ProblemResponse;

    async fn from_request(request: Request, state: &S) -> Answer<Self> {
        parse_json(&whole_body(request, state).await?).map(Self)
    }
}

/// A body of bytes, whole in memory.
pub(crate) struct Raw(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Raw {
    type Rejection = ProblemResponse;

    async fn from_request(request: Request, state: &S) -> Answer<Self> {
        whole_body(request, state).await.map(Self)
    }
}

/// A JSON body that may be absent.
pub(crate) struct OptionalJson<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalJson<T> {
    type Rejection = ProblemResponse;

    async fn from_request(request: Request, state: &S) -> Answer<Self> {
        let body = whole_body(request, state).await?;
        if body.is_empty() { Ok(Self(T::default())) } else { parse_json(&body).map(Self) }
    }
}

/// Reads a body within the route's limit of size and [`BODY_TIME`].
async fn whole_body<S: Send + Sync>(request: Request, state: &S) -> Answer<Bytes> {
    match tokio::time::timeout(BODY_TIME, Bytes::from_request(request, state)).await {
        Ok(body) => body.map_err(body_fault),
        Err(_) => Err(ProblemResponse::bad("The body did not arrive within two minutes.")),
    }
}

fn body_fault(rejection: BytesRejection) -> ProblemResponse {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        ProblemResponse::new(ProblemCode::TooLarge, "The body is larger than this route takes.")
    } else {
        ProblemResponse::bad("The body ended before it was whole.")
    }
}

fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Answer<T> {
    strict::from_slice(body).map_err(|error| {
        let error: String = error.to_string().chars().take(300).collect();
        ProblemResponse::bad(format!("The body is not the JSON that this route takes: {error}."))
    })
}

/// A path's parameters.
pub(crate) struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = ProblemResponse;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Answer<Self> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        path.map(|path| Self(path.0)).map_err(|rejection| {
            use axum::extract::{path::ErrorKind, rejection::PathRejection};
            let why = match rejection {
                PathRejection::FailedToDeserializePathParams(failed) => match failed.into_kind() {
                    ErrorKind::DeserializeError { message, .. } | ErrorKind::Message(message) => message,
                    other => other.to_string(),
                },
                other => other.body_text(),
            };
            ProblemResponse::not_found(format!("There is no such thing: {why}."))
        })
    }
}

/// A query's parameters.
pub(crate) struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ProblemResponse;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Answer<Self> {
        let query = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        query
            .map(|query| Self(query.0))
            .map_err(|rejection| ProblemResponse::bad(format!("{}.", rejection.body_text())))
    }
}

pub(crate) async fn no_such_route(request: Request) -> ProblemResponse {
    let path: String = request.uri().path().chars().take(120).collect();
    ProblemResponse::not_found(format!("There is no {path} here; /api/openapi.json lists what there is."))
}

/// Answers a method that the path does not take; the router adds the header `Allow`.
pub(crate) async fn no_such_method(request: Request) -> ProblemResponse {
    let path: String = request.uri().path().chars().take(120).collect();
    ProblemResponse::new(ProblemCode::MethodNotAllowed, format!("{path} does not take {}.", request.method()))
}

/// Answers a request whose handler panicked.
pub(crate) fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    ProblemResponse::internal("The request failed inside the server", text).into_response()
}

fn disk_full() -> ProblemResponse {
    ProblemResponse::new(ProblemCode::NoSpace, "The server's disk is full; free some space and try again.")
}

impl From<StoreError> for ProblemResponse {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::NoSpace => disk_full(),
            _ => Self::internal("The server's records could not be read or written", &error),
        }
    }
}

impl From<BlobError> for ProblemResponse {
    fn from(error: BlobError) -> Self {
        // A body may end with an error of our own.
        let error = match error {
            BlobError::Stream(why) => match why.downcast::<BlobError>() {
                Ok(own) => *own,
                Err(why) => BlobError::Stream(why),
            },
            error => error,
        };
        match &error {
            BlobError::Mismatch { .. } | BlobError::Frame(FrameError::Mismatch { .. }) => {
                Self::new(ProblemCode::HashMismatch, sentence(&error))
            }
            BlobError::TooLarge { .. } | BlobError::BeyondSize { .. } => {
                Self::new(ProblemCode::TooLarge, sentence(&error))
            }
            BlobError::Reserved { free } => Self::new(
                ProblemCode::NoSpace,
                format!(
                    "The server's disk is full ({} MiB left); free some space and try again.",
                    free >> 20
                ),
            ),
            BlobError::NoSpace => disk_full(),
            BlobError::NotFound(_) | BlobError::NoUpload(_) | BlobError::Damaged(_) => {
                Self::not_found(sentence(&error))
            }
            BlobError::WrongOffset { right } => {
                let mut fault = Self::new(ProblemCode::OffsetMismatch, sentence(&error));
                fault.0.offset = Some(*right);
                fault
            }
            BlobError::Busy | BlobError::Incomplete { .. } | BlobError::Lacking { .. } => {
                Self::conflict(sentence(&error))
            }
            // No memory to unpack it: not the sender's fault.
            BlobError::Frame(FrameError::Io(_)) => {
                Self::internal("The server could not read or write its disk", &error)
            }
            BlobError::BadName(_) | BlobError::Stream(_) => Self::bad(sentence(&error)),
            BlobError::Frame(_) | BlobError::WrongLength(_) => Self::unprocessable(sentence(&error)),
            _ => Self::internal("The server could not read or write its disk", &error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_problem_and_keeps_its_secret() {
        let response = panicked(Box::new("the key is kiln_1"));
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_JSON);
        let body = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
        let problem: Problem = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem.code, ProblemCode::Internal);
        assert!(!problem.detail.contains("kiln_1"), "{}", problem.detail);
    }
}
