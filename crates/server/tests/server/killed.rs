//! Small outputs that arrive while the server is killed: each that was acknowledged is there after the restart.

use std::{collections::HashSet, path::Path, sync::Arc};

use bytes::Bytes;
use futures_util::TryStreamExt;
use kiln_client::Client;
use kiln_server::{Durability, Server, ServerOptions};
use kiln_testkit::kill_midway;
use kiln_types::BlobHash;

use crate::support::{files_below, options, soon};

const FOLDER: &str = "KILN_TEST_KILLED_SERVER";
const ROUNDS: usize = 5;
const WORKERS: usize = 24;

fn durable(data: &Path) -> ServerOptions {
    ServerOptions { durability: Durability::Durable, ..options(data) }
}

/// A server, and workers that send it outputs until the process is killed; prints which were acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "runs in a process of its own, started and killed by the test below"]
async fn child() {
    let data = std::env::var_os(FOLDER).unwrap();
    let server = Server::start(durable(Path::new(&data))).await.unwrap();
    let client = Arc::new(Client::new(server.url(), server.key()).unwrap());
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..WORKERS {
        let client = client.clone();
        workers.spawn(async move {
            loop {
                // Some pack well, some are empty, some are files of their own.
                let len = rand::random_range(0..6000) * if worker == 0 { 20 } else { 1 };
                let mut bytes = vec![worker as u8; len];
                rand::fill(&mut bytes[..len / 2]);
                let hash = BlobHash::of(&bytes);
                client.put_blob_bytes(hash, bytes.into()).await.unwrap();
                println!("acked {hash}");
            }
        });
    }
    workers.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn small_outputs_that_were_acknowledged_survive_a_server_that_is_killed() {
    let data = tempfile::tempdir().unwrap();
    let mut safe = HashSet::new();
    for _ in 0..ROUNDS {
        let mut read = |line: &str| {
            line.split_once("acked ").is_some_and(|(_, hash)| safe.insert(hash.parse::<BlobHash>().unwrap()))
        };
        let enough = rand::random_range(1..400);
        kill_midway("killed::child", (FOLDER, data.path()), enough, &mut read);
        let server = Server::start(durable(data.path())).await.unwrap();
        let client = Client::new(server.url(), server.key()).unwrap();
        for hash in &safe {
            let (_, pieces) = soon("an output", client.get_blob(*hash)).await.unwrap();
            let bytes: Vec<Bytes> = soon("its bytes", pieces.try_collect()).await.unwrap();
            assert_eq!(BlobHash::of(&bytes.concat()), *hash);
        }
        server.stop().await.unwrap();
    }
    let packs = files_below(data.path()).iter().filter(|name| name.starts_with("packs/")).count();
    assert!(
        (1..=ROUNDS).contains(&packs) && safe.len() > 10 * packs,
        "{} blobs in {packs} packs",
        safe.len()
    );
}
