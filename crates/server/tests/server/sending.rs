//! A client and a server with a proxy between them that counts bytes, and cuts connections.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use kiln_client::{Client, ClientError, Prepared, Request, Transfer, UploadProgress};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::support::{Farm, sample, soon};

/// The bytes that a cut may cost: those of the requests in progress.
const IN_FLIGHT: u64 = 3 * (4 << 20) + (1 << 20);

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// The sample scene, with a block of these bytes in it.
fn blend(block: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut sample = kiln_chunks::unpack_blend(std::io::Cursor::new(sample()), 1 << 30).unwrap();
    std::io::Read::read_to_end(&mut sample, &mut plain).unwrap();
    assert!(plain.starts_with(b"BLENDER-v"), "a header of 12 bytes, and heads of 24");
    let mut head = b"DATA".to_vec();
    head.extend(u32::try_from(block.len()).unwrap().to_le_bytes());
    head.extend(0x7777_0000_u64.to_le_bytes());
    head.extend([0, 0, 0, 0, 1, 0, 0, 0]);
    [&plain[..12], &head, block, &plain[12..]].concat()
}

fn prepare(path: &Path) -> Prepared {
    Prepared::new(path, &Request::default()).unwrap()
}

/// A proxy between a client and the server.
struct Line {
    url: String,
    /// Bytes towards the server.
    up: Arc<AtomicU64>,
    /// The number of bytes after which a connection is cut, once.
    cut_at: Arc<AtomicU64>,
}

impl Line {
    async fn to(farm: &Farm) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let target = farm.url.strip_prefix("http://").unwrap().to_owned();
        let (up, cut_at) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(u64::MAX)));
        let (counter, cut) = (up.clone(), cut_at.clone());
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(&target).await.unwrap();
                tokio::spawn(carry(near, far, counter.clone(), cut.clone()));
            }
        });
        Self { url, up, cut_at }
    }

    fn client(&self, farm: &Farm) -> Client {
        Client::new(&self.url, &farm.key).unwrap()
    }

    fn up(&self) -> u64 {
        self.up.load(Ordering::SeqCst)
    }
}

async fn carry(near: TcpStream, far: TcpStream, up: Arc<AtomicU64>, cut_at: Arc<AtomicU64>) {
    let (mut near_read, mut near_write) = near.into_split();
    let (mut far_read, mut far_write) = far.into_split();
    let back = tokio::spawn(async move { tokio::io::copy(&mut far_read, &mut near_write).await });
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = near_read.read(&mut buffer).await {
        if up.load(Ordering::SeqCst) >= cut_at.load(Ordering::SeqCst) {
            cut_at.store(u64::MAX, Ordering::SeqCst);
            break;
        }
        up.fetch_add(read as u64, Ordering::SeqCst);
        if far_write.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    back.abort();
}

struct Bench {
    farm: Farm,
    line: Line,
    client: Client,
    dir: TempDir,
}

impl Bench {
    async fn new() -> Self {
        let farm = Farm::start().await;
        let line = Line::to(&farm).await;
        let client = line.client(&farm);
        Self { farm, line, client, dir: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Sends a bundle; returns the last progress and the bytes that went to the server.
    async fn send(&self, prepared: &Prepared) -> (UploadProgress, u64) {
        let (before, mut last) = (self.line.up(), UploadProgress::default());
        let sent = self.client.send_bundle(prepared, |sent| last = sent);
        soon("the end of the upload", sent).await.unwrap();
        (last, self.line.up() - before)
    }

    async fn arrived(&self, prepared: &Prepared, bytes: &[u8]) {
        let bundle = self.farm.client.bundle(prepared.session.bundle).await.unwrap();
        let path = format!("/api/v1/blobs/{}", bundle.files[0].hash);
        assert!(self.farm.get(&path).await.bytes().await.unwrap() == bytes);
    }
}

#[tokio::test]
async fn a_small_change_sends_few_bytes() {
    let bench = Bench::new().await;
    let mut block = noise(4_000_000, 1);
    let path = bench.file("shot.blend", &blend(&block));
    let (first, up) = bench.send(&prepare(&path)).await;
    assert_eq!(first.done, first.total);
    // Pieces of the scene that are alike.
    assert!(first.there < 100_000, "{first:?}");
    assert!(up > 4_000_000);
    let (again, up) = bench.send(&prepare(&path)).await;
    assert_eq!((again.done, again.total), (0, 0));
    assert!(up < 3_000, "{up} bytes to say that nothing changed");

    block[2_000_000..2_000_100].fill(7);
    let changed = blend(&block);
    std::fs::write(&path, &changed).unwrap();
    let prepared = prepare(&path);
    let (sent, up) = bench.send(&prepared).await;
    assert_eq!(sent.done + sent.there, prepared.size());
    assert!((1..=128 << 10).contains(&sent.done), "{sent:?}");
    // Besides the chunks, 68 bytes for each that was there: its hash, and its place in the recipe.
    assert!(up < 160_000, "{up}");
    bench.arrived(&prepared, &changed).await;
}

#[tokio::test]
async fn a_cut_costs_only_the_requests_in_progress() {
    let bench = Bench::new().await;
    let bytes = blend(&noise(24 << 20, 2));
    let prepared = prepare(&bench.file("shot.blend", &bytes));
    bench.line.cut_at.store(14 << 20, Ordering::SeqCst);
    let (sent, up) = bench.send(&prepared).await;
    assert_eq!(bench.line.cut_at.load(Ordering::SeqCst), u64::MAX, "it was cut");
    assert_eq!(sent.done, sent.total);
    assert!(up < bytes.len() as u64 + IN_FLIGHT, "{up}");
    bench.arrived(&prepared, &bytes).await;
}

#[tokio::test]
async fn an_aborted_upload_resumes() {
    let bench = Bench::new().await;
    let bytes = blend(&noise(24 << 20, 3));
    let prepared = prepare(&bench.file("shot.blend", &bytes));
    let enough = async {
        while bench.line.up() < 18 << 20 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        sent = bench.client.send_bundle(&prepared, |_| ()) => panic!("it ended first: {sent:?}"),
        () = enough => {}
    }
    let (sent, up) = bench.send(&prepared).await;
    assert!(sent.there > 0, "{sent:?}");
    assert_eq!(sent.there + sent.total, prepared.size());
    assert!(up < (6 << 20) + IN_FLIGHT, "{up}");
    bench.arrived(&prepared, &bytes).await;
}

#[tokio::test]
async fn bytes_that_two_jobs_share_are_sent_and_kept_once() {
    let bench = Bench::new().await;
    let shared = noise(6_000_000, 4);
    let first = prepare(&bench.file("a.blend", &blend(&[noise(1000, 5), shared.clone()].concat())));
    let second = prepare(&bench.file("b.blend", &blend(&[noise(70_000, 6), shared].concat())));
    let (_, up) = bench.send(&first).await;
    assert!(up > 6_000_000);
    let (sent, up) = bench.send(&second).await;
    assert!(sent.there > 5_800_000 && up < 300_000, "{sent:?}, {up}");
    let kept: u64 = std::fs::read_dir(bench.farm.data.path().join("packs"))
        .unwrap()
        .map(|pack| pack.unwrap().metadata().unwrap().len())
        .sum();
    assert!(kept < 7_000_000, "{kept}");
}

#[tokio::test]
async fn a_file_that_changed_since_it_was_read_is_named() {
    let bench = Bench::new().await;
    let mut block = noise(200_000, 7);
    let path = bench.file("shot.blend", &blend(&block));
    for transfer in [Transfer::Chunks, Transfer::Whole] {
        let prepared = Prepared::new(&path, &Request { transfer, ..Request::default() }).unwrap();
        block[100_000] ^= 1;
        std::fs::write(&path, blend(&block)).unwrap();
        let error = bench.client.send_bundle(&prepared, |_| ()).await.unwrap_err();
        assert!(
            matches!(&error, ClientError::Changed { path: named } if named.ends_with("shot.blend")),
            "{error}"
        );
        assert!(bench.farm.client.bundle(prepared.session.bundle).await.is_err());
    }
}

#[tokio::test]
async fn a_packed_blend_is_the_same_bundle_with_either_transfer() {
    use std::io::Write as _;
    let bench = Bench::new().await;
    let plain = blend(&noise(6 << 20, 8));
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&plain).unwrap();
    let path = bench.file("shot.blend", &packed.finish().unwrap());
    let [chunks, whole] = [Transfer::Chunks, Transfer::Whole].map(|transfer| {
        let request = Request { transfer, ..Request::default() };
        Prepared::new(&path, &request).unwrap()
    });
    assert_eq!(chunks.session, whole.session);
    bench.send(&chunks).await;
    bench.arrived(&chunks, &plain).await;
    let other = Bench::new().await;
    other.send(&whole).await;
    other.arrived(&whole, &plain).await;
    // An unpacked file of the same scene is the same bundle.
    std::fs::write(&path, &plain).unwrap();
    assert_eq!(prepare(&path).session, chunks.session);
}
