//! Access to the server: the key, Host and Origin, and problems as answers.

use kiln_api::ProblemCode;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::support::{Farm, problem};

const PUBLIC: [&str; 3] = ["/api/v1/info", "/api/openapi.json", "/healthz"];

/// Every method of every route, with parameters that parse.
fn routes() -> Vec<(Method, String)> {
    let document: Value = serde_json::from_str(&kiln_server::openapi_json()).unwrap();
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let upload = path.contains("/uploads/");
        let path = path
            .replace("{id}", if upload { "00000000000000aa" } else { "1" })
            .replace("{hash}", &"a".repeat(64))
            .replace("{attempt}", "1-1")
            .replace("{path}", "a/b.png")
            .replace("{name}", "nobody");
        for method in item.as_object().unwrap().keys() {
            if let Ok(method) = Method::from_bytes(method.to_uppercase().as_bytes()) {
                all.push((method, path.clone()));
            }
        }
    }
    for path in ["/healthz", "/api/openapi.json", "/", "/api/v1/nothing"] {
        all.push((Method::GET, path.to_owned()));
    }
    all
}

#[tokio::test]
async fn every_route_but_the_public_ones_needs_the_key() {
    let farm = Farm::start().await;
    let routes = routes();
    assert!(routes.len() > 35, "{}", routes.len());
    for (method, path) in routes {
        let what = format!("{method} {path}");
        let url = format!("{}{path}", farm.url);
        for key in [None, Some("kiln_wrong"), Some("")] {
            let mut request = farm.http.request(method.clone(), &url);
            if let Some(key) = key {
                request = request.bearer_auth(key);
            }
            let answer = request.send().await.unwrap();
            if PUBLIC.contains(&path.as_str()) {
                assert_eq!(answer.status(), StatusCode::OK, "{what} {key:?}");
            } else {
                assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{what} {key:?}");
                assert_eq!(answer.headers()["www-authenticate"], "Bearer", "{what}");
            }
        }
    }
}

#[tokio::test]
async fn web_pages_of_other_sites_are_refused() {
    let farm = Farm::start().await;
    for (method, path) in routes() {
        let what = format!("{method} {path}");
        for (name, value) in [
            ("Host", "evil.example"),
            ("Host", "127.0.0.1.evil.example"),
            ("Origin", "http://evil.example"),
            ("Origin", "null"),
            ("Origin", "http://127.0.0.1:1"),
        ] {
            // With the right key, too: a page may know it.
            let answer = farm.request(method.clone(), &path).header(name, value).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{what} {name}: {value}");
        }
    }
    let own = farm.request(Method::GET, "/api/v1/me").header("Origin", &farm.url).send().await.unwrap();
    assert_eq!(own.status(), StatusCode::OK);
}

#[tokio::test]
async fn allowed_hosts_are_answered() {
    let data = tempfile::tempdir().unwrap();
    let farm = Farm::start_in(data, |options| options.allowed_hosts = vec!["farm.example".to_owned()]).await;
    let answer =
        farm.request(Method::GET, "/api/v1/me").header("Host", "farm.example:1").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
}

#[tokio::test]
async fn every_error_is_a_problem() {
    let farm = Farm::start().await;
    let check = async |method: Method, path: &str, body: &str, status: u16, code: ProblemCode| {
        let answer = farm.request(method, path).body(body.to_owned()).send().await.unwrap();
        let problem = problem(answer).await;
        assert_eq!((problem.status, problem.code), (status, code), "{path}: {}", problem.detail);
        problem.detail
    };
    use ProblemCode::{BadRequest, MethodNotAllowed, NotFound, TooLarge, UpgradeRequired};
    check(Method::GET, "/api/v1/nothing", "", 404, NotFound).await;
    check(Method::GET, "/", "", 404, NotFound).await;
    check(Method::DELETE, "/api/v1/info", "", 405, MethodNotAllowed).await;
    check(Method::GET, "/api/v1/jobs/seven", "", 404, NotFound).await;
    check(Method::GET, "/api/v1/jobs/7", "", 404, NotFound).await;
    check(Method::GET, "/api/v1/jobs?limit=many", "", 400, BadRequest).await;
    check(Method::GET, "/api/v1/jobs?state=sleeping", "", 400, BadRequest).await;
    check(Method::GET, "/api/v1/jobs?limit=0", "", 400, BadRequest).await;
    check(Method::GET, "/api/v1/jobs?limit=501", "", 400, BadRequest).await;
    for (method, path) in [
        (Method::POST, "/api/v1/farm/collect"),
        (Method::PUT, "/api/v1/users/ada"),
        (Method::PUT, "/api/v1/projects/short"),
        (Method::PATCH, "/api/v1/jobs/7"),
        (Method::POST, "/api/v1/jobs/7/rerender"),
    ] {
        // Serde by itself reads an object from a list of its fields.
        check(method, path, "[]", 400, BadRequest).await;
    }
    check(Method::GET, "/api/v1/blobs/xyz", "", 404, NotFound).await;
    check(Method::GET, "/api/v1/worker", "", 426, UpgradeRequired).await;
    check(Method::GET, "/api/v1/jobs/1/files/..%2f..%2ffarm.key", "", 404, NotFound).await;
    let detail = check(Method::POST, "/api/v1/jobs", "{", 400, BadRequest).await;
    assert!(detail.contains("line 1"), "{detail}");
    check(Method::POST, "/api/v1/jobs", &"[".repeat(100_000), 400, BadRequest).await;
    check(Method::POST, "/api/v1/jobs", &" ".repeat(3 << 20), 413, TooLarge).await;
    check(Method::POST, "/api/v1/jobs/7/extend", "{}", 400, BadRequest).await;
    for verb in ["pause", "resume", "cancel", "retry", "rerender"] {
        let detail = check(Method::POST, &format!("/api/v1/jobs/7/{verb}"), "", 404, NotFound).await;
        assert!(detail.contains("job 7"), "{detail}");
    }
    for part in ["tasks", "attempts", "outputs", "report", "logs", "files/a.png", "attempts/1-1/log"] {
        check(Method::GET, &format!("/api/v1/jobs/7/{part}"), "", 404, NotFound).await;
    }
    check(Method::DELETE, "/api/v1/jobs/7", "", 404, NotFound).await;
    check(Method::POST, "/api/v1/jobs/7/extend", r#"{"frames":"1"}"#, 404, NotFound).await;
    check(Method::POST, "/api/v1/workers/nobody/pause", "", 404, NotFound).await;
    check(Method::DELETE, "/api/v1/workers/nobody", "", 404, NotFound).await;
}
