//! The paths of the API.

use std::fmt::Display;

use kiln_api::PREFIX;
use kiln_types::{AttemptId, BlobHash, BundleId, JobId};

pub fn info() -> String {
    format!("{PREFIX}/info")
}

pub fn me() -> String {
    format!("{PREFIX}/me")
}

pub fn blobs_missing() -> String {
    format!("{PREFIX}/blobs/missing")
}

pub fn blob(hash: BlobHash) -> String {
    format!("{PREFIX}/blobs/{hash}")
}

/// Returns the path of a blob's recipe.
pub fn blob_chunks(hash: BlobHash) -> String {
    format!("{PREFIX}/blobs/{hash}/chunks")
}

pub fn chunks() -> String {
    format!("{PREFIX}/chunks")
}

pub fn chunks_missing() -> String {
    format!("{PREFIX}/chunks/missing")
}

pub fn chunks_fetch() -> String {
    format!("{PREFIX}/chunks/fetch")
}

pub fn bundles() -> String {
    format!("{PREFIX}/bundles")
}

pub fn bundle(id: BundleId) -> String {
    format!("{PREFIX}/bundles/{id}")
}

pub fn jobs() -> String {
    format!("{PREFIX}/jobs")
}

pub fn job(id: JobId) -> String {
    format!("{PREFIX}/jobs/{id}")
}

/// Returns the path of a verb on a job, or of a list that belongs to it.
pub fn of_job(id: JobId, what: &str) -> String {
    format!("{PREFIX}/jobs/{id}/{what}")
}

pub fn running() -> String {
    format!("{PREFIX}/running")
}

pub fn attempt_log(job: JobId, attempt: AttemptId) -> String {
    format!("{PREFIX}/jobs/{job}/attempts/{attempt}/log")
}

pub fn collect() -> String {
    format!("{PREFIX}/farm/collect")
}

pub fn users() -> String {
    format!("{PREFIX}/users")
}

pub fn user(name: &str) -> String {
    format!("{PREFIX}/users/{}", escaped(name))
}

pub fn projects() -> String {
    format!("{PREFIX}/projects")
}

pub fn project(name: &str) -> String {
    format!("{PREFIX}/projects/{}", escaped(name))
}

pub fn limits() -> String {
    format!("{PREFIX}/limits")
}

pub fn limit(name: &str) -> String {
    format!("{PREFIX}/limits/{}", escaped(name))
}

pub fn workers() -> String {
    format!("{PREFIX}/workers")
}

pub fn worker(name: &str) -> String {
    format!("{PREFIX}/workers/{}", escaped(name))
}

/// Returns the path of a verb on a worker.
pub fn of_worker(name: &str, verb: &str) -> String {
    format!("{PREFIX}/workers/{}/{verb}", escaped(name))
}

pub fn events() -> String {
    format!("{PREFIX}/events")
}

pub fn worker_link() -> String {
    format!("{PREFIX}/worker")
}

/// Adds the parameters that are there to a path.
pub fn with(path: String, parameters: &[(&str, Option<&(dyn Display + Sync)>)]) -> String {
    let mut out = path;
    let mut mark = '?';
    for (name, value) in parameters {
        if let Some(value) = value {
            out = format!("{out}{mark}{name}={}", escaped(&value.to_string()));
            mark = '&';
        }
    }
    out
}

/// Percent-encodes all but the unreserved characters of RFC 3986.
fn escaped(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_place_in_the_path() {
        assert_eq!(worker("a/../b?c#d é"), "/api/v1/workers/a%2F..%2Fb%3Fc%23d%20%C3%A9");
    }

    #[test]
    fn parameters_that_are_absent_are_left_out() {
        assert_eq!(with("/x".into(), &[("a", None), ("b", Some(&7)), ("c", Some(&8))]), "/x?b=7&c=8");
        assert_eq!(with("/x".into(), &[]), "/x");
    }
}
