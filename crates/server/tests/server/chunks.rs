//! Chunks over HTTP: uploads, downloads, malformed ones, and whole files that become chunks.

use std::io::Write as _;

use kiln_api::{JobView, MAX_FRAMES, ProblemCode};
use kiln_chunks::{Chunk, Frame, FrameHead, Grain, Recipe, pack, split};
use kiln_testkit::SmallDisk;
use kiln_types::BlobHash;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Farm, files_below, problem, sample, soon};

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// A file as it travels.
struct File {
    bytes: Vec<u8>,
    hash: BlobHash,
    recipe: Recipe,
    frames: Vec<Vec<u8>>,
}

fn file(bytes: Vec<u8>) -> File {
    let mut frames = Vec::new();
    let split = split(&bytes[..], Some(Grain::Fine), |_, bytes| {
        let mut wire = Vec::new();
        pack(bytes).write_to(&mut wire)?;
        frames.push(wire);
        Ok(())
    });
    let split = split.unwrap();
    File { bytes, hash: split.hash, recipe: split.recipe, frames }
}

fn hashes(recipe: &Recipe) -> Vec<u8> {
    recipe.chunks.iter().flat_map(|chunk| *chunk.hash.as_bytes()).collect()
}

impl Farm {
    async fn send(&self, method: Method, path: &str, body: impl Into<reqwest::Body>) -> reqwest::Response {
        soon("an answer", self.request(method, path).body(body).send()).await.unwrap()
    }

    async fn put_frames(&self, frames: Vec<u8>) -> reqwest::Response {
        self.send(Method::POST, "/api/v1/chunks", frames).await
    }

    async fn put_recipe(&self, hash: BlobHash, recipe: &Recipe) -> reqwest::Response {
        self.send(Method::PUT, &format!("/api/v1/blobs/{hash}/chunks"), recipe.to_bytes()).await
    }

    async fn missing(&self, recipe: &Recipe) -> usize {
        let answer = self.send(Method::POST, "/api/v1/chunks/missing", hashes(recipe)).await;
        assert_eq!(answer.status(), StatusCode::OK);
        answer.bytes().await.unwrap().len() / 32
    }
}

#[tokio::test]
async fn a_file_arrives_in_chunks_and_leaves_whole_in_parts_or_in_chunks() {
    let farm = Farm::start().await;
    let file = file([noise(300_000, 1), vec![7; 200_000]].concat());
    assert_eq!(farm.missing(&file.recipe).await, farm.missing(&file.recipe).await);
    // Without its chunks it is none.
    let early = problem(farm.put_recipe(file.hash, &file.recipe).await).await;
    assert_eq!(early.code, ProblemCode::Conflict);
    assert_eq!(farm.put_frames(file.frames.concat()).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(farm.missing(&file.recipe).await, 0);
    assert_eq!(farm.client.missing(&[file.hash]).await.unwrap(), [file.hash]);
    assert_eq!(farm.put_recipe(file.hash, &file.recipe).await.status(), StatusCode::NO_CONTENT);
    assert!(farm.client.missing(&[file.hash]).await.unwrap().is_empty());

    let path = format!("/api/v1/blobs/{}", file.hash);
    assert!(farm.get(&path).await.bytes().await.unwrap() == file.bytes);
    let part = farm.request(Method::GET, &path).header("Range", "bytes=299990-300009").send().await.unwrap();
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.bytes().await.unwrap()[..], file.bytes[299_990..300_010]);
    let head = farm.request(Method::HEAD, &path).send().await.unwrap();
    assert_eq!(head.headers()["content-length"], "500000");

    let recipe = farm.client.recipe(file.hash).await.unwrap();
    assert_eq!(recipe, Some(file.recipe.clone()));
    let frames = farm.send(Method::POST, "/api/v1/chunks/fetch", hashes(&file.recipe)).await;
    let (mut came, mut joined) = (&frames.bytes().await.unwrap()[..], Vec::new());
    while let Some(frame) = Frame::read_from(&mut came).unwrap() {
        joined.extend(kiln_chunks::unpack(&frame).unwrap());
    }
    assert!(joined == file.bytes);
}

#[tokio::test]
async fn a_malformed_chunk_is_a_problem_and_those_before_it_stay() {
    let farm = Farm::start().await;
    let good = file(noise(100_000, 2));
    let whole = good.frames[0].clone();
    let head: [u8; FrameHead::LEN] = good.frames[1][..FrameHead::LEN].try_into().unwrap();
    let with_length = |len: u32| [&head[..32], &len.to_le_bytes(), &head[36..], &[0; 100]].concat();
    let mut other = good.frames[1].clone();
    *other.last_mut().unwrap() ^= 1;
    let cases = [
        ("garbage", noise(10_000, 3), ProblemCode::Unprocessable),
        ("a head alone", head.to_vec(), ProblemCode::Unprocessable),
        ("half a chunk", good.frames[1][..1000].to_vec(), ProblemCode::Unprocessable),
        ("no bytes at all claimed", with_length(0), ProblemCode::Unprocessable),
        ("more claimed than any chunk has", with_length(u32::MAX), ProblemCode::Unprocessable),
        ("other bytes", other, ProblemCode::HashMismatch),
    ];
    for (what, bad, code) in cases {
        let answer = problem(farm.put_frames([whole.clone(), bad].concat()).await).await;
        assert_eq!(answer.code, code, "{what}: {}", answer.detail);
        assert_eq!(farm.missing(&good.recipe).await, good.recipe.chunks.len() - 1, "{what}");
    }
    // Packed bytes that unpack to more than they say.
    let zeros = pack(&vec![0; 60_000]);
    let mut lying = Vec::new();
    zeros.write_to(&mut lying).unwrap();
    lying[32..36].copy_from_slice(&50_000_u32.to_le_bytes());
    let answer = problem(farm.put_frames(lying).await).await;
    assert_eq!(answer.code, ProblemCode::Unprocessable, "{}", answer.detail);
    // More than a request may bring, announced and not.
    let zeros = vec![0_u8; 1 << 20];
    let announced = farm.request(Method::POST, "/api/v1/chunks").header("Content-Length", MAX_FRAMES + 1);
    let announced = announced.body(reqwest::Body::wrap_stream(futures_util::stream::iter(
        std::iter::repeat_n(zeros, 65).map(Ok::<_, std::io::Error>),
    )));
    // The answer may come before the body has gone, which then breaks the line.
    if let Ok(answer) = announced.send().await {
        assert_eq!(problem(answer).await.code, ProblemCode::TooLarge);
    }
}

#[tokio::test]
async fn a_malformed_recipe_makes_no_blob() {
    let farm = Farm::start().await;
    let good = file(noise(200_000, 4));
    assert_eq!(farm.put_frames(good.frames.concat()).await.status(), StatusCode::NO_CONTENT);
    let chunks = &good.recipe.chunks;
    let changed = |change: fn(&mut Vec<Chunk>)| {
        let mut chunks = chunks.clone();
        change(&mut chunks);
        Recipe { chunks }
    };
    let cases = [
        ("one is missing", changed(|chunks| chunks.truncate(chunks.len() - 1)), ProblemCode::HashMismatch),
        ("one twice", changed(|chunks| chunks.push(chunks[0])), ProblemCode::HashMismatch),
        ("another order", changed(|chunks| chunks.swap(0, 1)), ProblemCode::HashMismatch),
        ("none", Recipe::default(), ProblemCode::HashMismatch),
        ("a length that is not its own", changed(|chunks| chunks[0].len += 1), ProblemCode::Unprocessable),
        ("one nobody has", changed(|chunks| chunks[0] = Chunk::of(b"else")), ProblemCode::Conflict),
    ];
    for (what, recipe, code) in cases {
        let answer = problem(farm.put_recipe(good.hash, &recipe).await).await;
        assert_eq!(answer.code, code, "{what}: {}", answer.detail);
    }
    let path = format!("/api/v1/blobs/{}/chunks", good.hash);
    for (what, bytes) in [
        ("cut", good.recipe.to_bytes()[..50].to_vec()),
        ("a chunk without bytes", [&[1; 32][..], &[0; 4]].concat()),
        ("a chunk that is too long", [&[1; 32][..], &[255; 4]].concat()),
    ] {
        let answer = problem(farm.send(Method::PUT, &path, bytes).await).await;
        assert_eq!(answer.code, ProblemCode::Unprocessable, "{what}: {}", answer.detail);
    }
    assert_eq!(farm.get(&format!("/api/v1/blobs/{}", good.hash)).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(farm.get(&path).await.status(), StatusCode::NOT_FOUND);
    for (path, body) in [
        ("/api/v1/chunks/missing", vec![0; 33]),
        ("/api/v1/chunks/fetch", vec![0; 31]),
        ("/api/v1/chunks/fetch", vec![0; 32 * 4097]),
    ] {
        assert_eq!(problem(farm.send(Method::POST, path, body).await).await.code, ProblemCode::Unprocessable);
    }
    let nobody = farm.send(Method::POST, "/api/v1/chunks/fetch", vec![0; 32]).await;
    assert_eq!(problem(nobody).await.code, ProblemCode::NotFound);
}

#[tokio::test]
async fn chunks_on_a_full_disk_are_turned_away() {
    let data = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(data.path(), 12) else { return };
    let farm = Farm::start_in(data, |_| ()).await;
    let file = file(noise(6_000_000, 5));
    let before = files_below(farm.data.path());
    // Announced: refused before a byte is written. The last bytes are the records'.
    disk.fill_but(2 << 20);
    let full = problem(farm.put_frames(file.frames.concat()).await).await;
    assert_eq!((full.status, full.code), (507, ProblemCode::NoSpace));
    let mut now = files_below(farm.data.path());
    now.retain(|name| name != "ballast");
    assert_eq!(now, before);
    disk.make_room();
    // Not announced: as much as fits, and what is whole of it is kept.
    let unannounced = |frames: &[Vec<u8>]| {
        let pieces: Vec<_> = frames.iter().cloned().map(Ok::<_, std::io::Error>).collect();
        reqwest::Body::wrap_stream(futures_util::stream::iter(pieces))
    };
    let large = self::file(noise(20_000_000, 6));
    // The answer may come before the body has gone, which then breaks the line.
    let sent = farm.request(Method::POST, "/api/v1/chunks").body(unannounced(&large.frames)).send();
    if let Ok(answer) = soon("an answer", sent).await {
        assert_eq!(problem(answer).await.code, ProblemCode::NoSpace);
    }
    let missing = farm.missing(&large.recipe).await;
    assert!(0 < missing && missing < large.recipe.chunks.len(), "{missing} are missing");
    let free = rustix::fs::statvfs(farm.data.path()).unwrap();
    assert!(free.f_bavail * free.f_frsize >= 1 << 20, "the last bytes are the records'");
    // Collected, there is room again, and what fits is taken without a length as well as with one.
    farm.collect_as_of(std::time::SystemTime::now() + std::time::Duration::from_secs(9 << 20)).await;
    let half = file.frames.len() / 2;
    let sent = farm.send(Method::POST, "/api/v1/chunks", unannounced(&file.frames[..half])).await;
    assert_eq!(sent.status(), StatusCode::NO_CONTENT);
    assert_eq!(farm.put_frames(file.frames[half..].concat()).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(farm.put_recipe(file.hash, &file.recipe).await.status(), StatusCode::NO_CONTENT);
    let mut farm = farm;
    farm.stop().await;
    drop(disk);
}

/// Returns the blobs that are kept whole, without those of these names.
fn whole_blobs(farm: &Farm, but: &[String]) -> Vec<String> {
    let mut names = files_below(farm.data.path());
    names.retain(|name| name.starts_with("blobs/") && !but.iter().any(|but| name.ends_with(but.as_str())));
    names
}

#[tokio::test]
async fn a_packed_upload_is_bundled_unpacked_and_then_split() {
    let farm = Farm::start().await;
    let plain = {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(
            &mut kiln_chunks::unpack_blend(std::io::Cursor::new(sample()), 1 << 30).unwrap(),
            &mut bytes,
        )
        .unwrap();
        bytes
    };
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&plain).unwrap();
    let packed = packed.finish().unwrap();
    let answer = farm.post("/api/v1/uploads", json!({"name": "shot.blend"})).await;
    let id = answer.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/uploads/{id}");
    let patch = farm.request(Method::PATCH, &path).header("Upload-Offset", 0).body(packed.clone());
    assert_eq!(patch.send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(farm.post(&format!("{path}/finish"), json!({})).await.status(), StatusCode::OK);
    let job = farm.post("/api/v1/jobs", json!({"source": {"upload": {"id": id}}, "frames": "1"})).await;
    let job: JobView = job.json().await.unwrap();
    let bundle = farm.client.bundle(job.spec.session.bundle).await.unwrap();
    assert_eq!(bundle.files[0].hash, BlobHash::of(&plain));
    assert_eq!(bundle.files[0].size, plain.len() as u64);
    // In the background: until then it is whole, and readable all the time.
    let blob = format!("/api/v1/blobs/{}", bundle.files[0].hash);
    let split = async {
        while farm.client.recipe(bundle.files[0].hash).await.unwrap().is_none() {
            assert!(farm.get(&blob).await.bytes().await.unwrap() == plain);
            tokio::task::yield_now().await;
        }
    };
    soon("the file in chunks", split).await;
    assert!(farm.get(&blob).await.bytes().await.unwrap() == plain);
    let manifest = job.spec.session.bundle.to_string();
    let upload = BlobHash::of(&packed).to_string();
    soon("the end of the whole file", async {
        while !whole_blobs(&farm, &[manifest.clone(), upload.clone()]).is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn files_that_an_earlier_server_left_whole_are_split_by_the_next() {
    let farm = Farm::start_in(tempfile::tempdir().unwrap(), |options| options.chunks = false).await;
    let none = problem(farm.send(Method::POST, "/api/v1/chunks/missing", vec![]).await).await;
    assert_eq!(none.code, ProblemCode::NotFound);
    let job = farm.submit("1").await;
    let bundle = farm.client.bundle(job.spec.session.bundle).await.unwrap();
    let hash = bundle.files[0].hash;
    assert_eq!(farm.client.recipe(hash).await.unwrap(), None);
    let farm = farm.restart().await;
    soon("the file in chunks", async {
        while farm.client.recipe(hash).await.unwrap().is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let bytes = farm.get(&format!("/api/v1/blobs/{hash}")).await.bytes().await.unwrap();
    assert_eq!(BlobHash::of(&bytes), hash);
}
