//! The OpenAPI document of the repository is the one that the server makes.

use reqwest::StatusCode;

use crate::support::Farm;

const SNAPSHOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../openapi.json");

#[tokio::test]
async fn the_snapshot_is_what_the_server_says() {
    let farm = Farm::start().await;
    let answer = farm.http.get(format!("{}/api/openapi.json", farm.url)).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let served = answer.text().await.unwrap();
    if std::env::var_os("KILN_UPDATE").is_some() {
        std::fs::write(SNAPSHOT, &served).unwrap();
    }
    let kept = std::fs::read_to_string(SNAPSHOT).unwrap();
    assert!(kept == served, "openapi.json is behind the code; run this test with KILN_UPDATE=1");
}

#[test]
fn every_reference_leads_somewhere() {
    let document: serde_json::Value = serde_json::from_str(&kiln_server::openapi_json()).unwrap();
    let mut waiting = vec![&document];
    let mut references = 0;
    while let Some(value) = waiting.pop() {
        match value {
            serde_json::Value::Object(fields) => {
                if let Some(reference) = fields.get("$ref").and_then(|reference| reference.as_str()) {
                    references += 1;
                    let place = reference.strip_prefix('#').unwrap();
                    assert!(document.pointer(place).is_some(), "{reference} leads nowhere");
                }
                waiting.extend(fields.values());
            }
            serde_json::Value::Array(items) => waiting.extend(items),
            _ => {}
        }
    }
    assert!(references > 50, "{references}");
}
