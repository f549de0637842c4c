//! Resumable uploads, blobs and bundles.

use std::path::Path;

use kiln_api::ProblemCode;
use kiln_types::{BlobHash, Bundle, BundleFile, RelPath};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Farm, problem, sample};

async fn begin(farm: &Farm, name: &str, size: Option<usize>) -> String {
    let answer = farm.post("/api/v1/uploads", json!({"name": name, "size": size})).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    format!("/api/v1/uploads/{}", answer.json::<Value>().await.unwrap()["id"].as_str().unwrap())
}

async fn append(farm: &Farm, path: &str, offset: usize, bytes: &[u8]) -> reqwest::Response {
    farm.request(Method::PATCH, path)
        .header("Upload-Offset", offset)
        .body(bytes.to_vec())
        .send()
        .await
        .unwrap()
}

/// Returns the bytes of all files below a folder that could hold sent bytes.
fn stored(folder: &Path) -> u64 {
    let mut total = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        total += match entry.metadata().unwrap() {
            folder if folder.is_dir() => stored(&entry.path()),
            // The records grow by their own pages.
            _ if name.contains(".db") || name.contains("sqlite") => 0,
            file => file.len(),
        };
    }
    total
}

#[tokio::test]
async fn an_upload_resumes_where_it_broke_off() {
    let farm = Farm::start().await;
    let bytes = sample();
    let path = begin(&farm, "shot.blend", Some(bytes.len())).await;
    let half = bytes.len() / 2;
    let answer = append(&farm, &path, 0, &bytes[..half]).await;
    assert_eq!(answer.headers()["upload-offset"], half.to_string().as_str());
    let wrong = problem(append(&farm, &path, half + 1, &bytes[half + 1..]).await).await;
    assert_eq!((wrong.status, wrong.code), (409, ProblemCode::OffsetMismatch));
    assert_eq!(wrong.offset, Some(half as u64));
    assert_eq!(problem(append(&farm, &path, 0, &bytes).await).await.offset, Some(half as u64));
    let early = problem(farm.post(&format!("{path}/finish"), json!({})).await).await;
    assert_eq!(early.code, ProblemCode::Conflict, "{}", early.detail);

    let head = farm.request(Method::HEAD, &path).send().await.unwrap();
    assert_eq!(head.headers()["upload-offset"], half.to_string().as_str());
    assert_eq!(append(&farm, &path, half, &bytes[half..]).await.status(), StatusCode::OK);
    for _ in 0..2 {
        let done: Value = farm.post(&format!("{path}/finish"), json!({})).await.json().await.unwrap();
        assert_eq!(done["hash"], BlobHash::of(&bytes).to_string());
        assert_eq!(done["size"], bytes.len());
    }
}

#[tokio::test]
async fn a_part_without_an_offset_is_refused() {
    let farm = Farm::start().await;
    let path = begin(&farm, "shot.blend", None).await;
    let answer = farm.request(Method::PATCH, &path).body("x").send().await.unwrap();
    assert!(problem(answer).await.detail.contains("Upload-Offset"));
    let answer =
        farm.request(Method::PATCH, &path).header("Upload-Offset", "-1").body("x").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_file_that_is_not_a_blend_leaves_no_bytes() {
    let farm = Farm::start().await;
    let before = stored(farm.data.path());
    let whole = sample();
    let cut = &whole[..whole.len() / 2];
    for (name, bytes) in
        [("letter.blend", &b"Dear artist, this is no scene."[..]), ("cut.blend", cut), ("empty.blend", b"")]
    {
        let path = begin(&farm, name, Some(bytes.len())).await;
        assert_eq!(append(&farm, &path, 0, bytes).await.status(), StatusCode::OK);
        let refused = problem(farm.post(&format!("{path}/finish"), json!({})).await).await;
        assert_eq!((refused.status, refused.code), (422, ProblemCode::NotABlend));
        assert!(refused.detail.contains(name), "{}", refused.detail);
        assert_eq!(farm.get(&path).await.status(), StatusCode::NOT_FOUND, "{name}");
        // No bytes at all are always there.
        let left = if bytes.is_empty() { StatusCode::OK } else { StatusCode::NOT_FOUND };
        assert_eq!(farm.get(&format!("/api/v1/blobs/{}", BlobHash::of(bytes))).await.status(), left);
    }
    assert_eq!(stored(farm.data.path()), before);
}

#[tokio::test]
async fn a_refused_upload_removes_no_bytes_that_another_client_was_promised() {
    let farm = Farm::start().await;
    // More than one chunk, so that it is a file of its own, and one that is a chunk.
    for bytes in [vec![b'x'; 200_000], b"Dear artist".to_vec()] {
        let hash = BlobHash::of(&bytes);
        farm.client.put_blob_bytes(hash, bytes.clone().into()).await.unwrap();
        assert!(farm.client.missing(&[hash]).await.unwrap().is_empty(), "somebody is told that it is there");
        let path = begin(&farm, "letter.blend", Some(bytes.len())).await;
        assert_eq!(append(&farm, &path, 0, &bytes).await.status(), StatusCode::OK);
        let refused = problem(farm.post(&format!("{path}/finish"), json!({})).await).await;
        assert_eq!((refused.status, refused.code), (422, ProblemCode::NotABlend));
        assert_eq!(farm.get(&path).await.status(), StatusCode::NOT_FOUND);
        assert_eq!(farm.get(&format!("/api/v1/blobs/{hash}")).await.bytes().await.unwrap(), bytes);
    }
}

#[tokio::test]
async fn an_upload_can_be_aborted() {
    let farm = Farm::start().await;
    let path = begin(&farm, "shot.blend", None).await;
    append(&farm, &path, 0, b"BLENDER").await;
    let gone = farm.request(Method::DELETE, &path).send().await.unwrap();
    assert_eq!(gone.status(), StatusCode::NO_CONTENT);
    assert_eq!(farm.get(&path).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(farm.request(Method::DELETE, &path).send().await.unwrap().status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn blobs_are_what_their_hash_says() {
    let farm = Farm::start().await;
    for size in [0, 5, 2 << 20] {
        let bytes: Vec<u8> = (0..size).map(|i: usize| i as u8).collect();
        let hash = BlobHash::of(&bytes);
        let path = format!("/api/v1/blobs/{hash}");
        // No bytes at all are always there.
        let before = if size == 0 { StatusCode::OK } else { StatusCode::NOT_FOUND };
        assert_eq!(farm.request(Method::HEAD, &path).send().await.unwrap().status(), before);
        let mut other = bytes.clone();
        other.push(1);
        let lie = problem(farm.request(Method::PUT, &path).body(other).send().await.unwrap()).await;
        assert_eq!(lie.code, ProblemCode::HashMismatch);
        assert_eq!(farm.get(&path).await.status(), before);
        for _ in 0..2 {
            let put = farm.request(Method::PUT, &path).body(bytes.clone()).send().await.unwrap();
            assert_eq!(put.status(), StatusCode::NO_CONTENT);
        }
        let head = farm.request(Method::HEAD, &path).send().await.unwrap();
        assert_eq!(head.headers()["content-length"], size.to_string().as_str());
        assert_eq!(farm.get(&path).await.bytes().await.unwrap(), bytes);
    }
}

#[tokio::test]
async fn a_download_resumes_where_it_broke_off() {
    let farm = Farm::start().await;
    let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i / 7) as u8).collect();
    let hash = BlobHash::of(&bytes);
    let path = format!("/api/v1/blobs/{hash}");
    farm.request(Method::PUT, &path).body(bytes.clone()).send().await.unwrap();
    let part = farm.request(Method::GET, &path).header("Range", "bytes=2000000-").send().await.unwrap();
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.headers()["content-range"], "bytes 2000000-2999999/3000000");
    assert_eq!(part.bytes().await.unwrap(), bytes[2_000_000..]);
    let beyond = farm.request(Method::GET, &path).header("Range", "bytes=3000000-").send().await.unwrap();
    assert_eq!(beyond.headers()["content-range"], "bytes */3000000");
    assert_eq!(problem(beyond).await.status, 416);
    let changed =
        farm.request(Method::GET, &path).header("Range", "bytes=5-").header("If-Range", "\"other\"");
    assert_eq!(changed.send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_bundle_needs_its_bytes() {
    let farm = Farm::start().await;
    let (here, gone) = (b"a texture".to_vec(), b"another".to_vec());
    let file = |path: &str, bytes: &[u8]| BundleFile {
        path: RelPath::new(path).unwrap(),
        hash: BlobHash::of(bytes),
        size: bytes.len() as u64,
    };
    let mut bundle = Bundle { files: vec![file("b.png", &here), file("a.png", &gone)], ..Bundle::default() };
    farm.client.put_blob_bytes(BlobHash::of(&here), here.clone().into()).await.unwrap();
    assert_eq!(
        farm.client.missing(&[BlobHash::of(&here), BlobHash::of(&gone)]).await.unwrap(),
        [BlobHash::of(&gone)]
    );
    let refused = problem(farm.post("/api/v1/bundles", json!(bundle)).await).await;
    assert!(refused.code == ProblemCode::Conflict && refused.detail.contains("a.png"), "{}", refused.detail);
    farm.client.put_blob_bytes(BlobHash::of(&gone), gone.into()).await.unwrap();
    let id = farm.client.create_bundle(&bundle).await.unwrap();
    assert_eq!(id, bundle.id());
    assert_eq!(farm.client.bundle(id).await.unwrap().files.len(), 2);

    bundle.files[0].size += 1;
    assert_eq!(
        problem(farm.post("/api/v1/bundles", json!(bundle)).await).await.code,
        ProblemCode::Unprocessable
    );
    bundle.files = vec![file("b.png", &here), file("b.png", &here)];
    assert!(problem(farm.post("/api/v1/bundles", json!(bundle)).await).await.detail.contains("twice"));
    bundle.files = Vec::new();
    assert_eq!(farm.post("/api/v1/bundles", json!(bundle)).await.status(), StatusCode::BAD_REQUEST);
}
