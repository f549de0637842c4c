//! Wake-on-LAN with real packets, which a socket on this machine receives.

use std::{net::SocketAddr, time::Duration};

use kiln_api::{DeviceOffer, Hello, Unavailability};
use kiln_server::ServerOptions;
use kiln_types::{DeviceClass, WorkerState};
use reqwest::StatusCode;
use serde_json::json;
use tokio::{net::UdpSocket, time::timeout};

use crate::support::{FakeWorker, Farm, hello, problem, soon};

/// Opens a socket that receives every packet.
async fn card() -> (UdpSocket, Vec<SocketAddr>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let targets = vec![socket.local_addr().unwrap()];
    (socket, targets)
}

async fn call(card: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 200];
    let length = soon("a call", card.recv(&mut buffer)).await.unwrap();
    buffer[..length].to_vec()
}

fn sleepy(id: u64, name: &str, mac: &str, wakes: bool) -> Hello {
    Hello { macs: vec![mac.to_owned()], wakes, ..hello(id, name, 1) }
}

/// Connects and disconnects, and waits until the farm shows the worker as offline.
async fn connect_and_leave(farm: &Farm, hello: Hello) {
    let name = hello.name.clone();
    FakeWorker::join_as(farm, hello).await.leave().await;
    let gone = async {
        while farm.client.worker(&name).await.unwrap().state != WorkerState::Offline {
            tokio::task::yield_now().await;
        }
    };
    soon("the worker offline", gone).await;
}

#[tokio::test]
async fn a_worker_is_woken_by_its_name() {
    let (card, targets) = card().await;
    let farm = Farm::start_in(tempfile::tempdir().unwrap(), |options| options.wake_to = Some(targets)).await;
    connect_and_leave(&farm, sleepy(1, "attic", "52:54:00:12:34:56", false)).await;
    let answer = farm.post("/api/v1/workers/attic/wake", json!({})).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let packet = call(&card).await;
    assert_eq!(
        (packet.len(), &packet[..12]),
        (102, &[255, 255, 255, 255, 255, 255, 0x52, 0x54, 0, 0x12, 0x34, 0x56][..])
    );

    connect_and_leave(&farm, sleepy(2, "odd", "no card", true)).await;
    let odd = problem(farm.post("/api/v1/workers/odd/wake", json!({})).await).await;
    assert!(odd.status == 409 && odd.detail.contains("network cards"), "{}", odd.detail);
    let _here = FakeWorker::join(&farm, 3, "here", 1).await;
    assert_eq!(problem(farm.post("/api/v1/workers/here/wake", json!({})).await).await.status, 409);
    assert_eq!(problem(farm.post("/api/v1/workers/nobody/wake", json!({})).await).await.status, 404);
}

#[tokio::test]
async fn waiting_work_wakes_workers_that_could_take_it() {
    let (card, targets) = card().await;
    let farm = Farm::start().await;
    connect_and_leave(&farm, sleepy(1, "unasked", "52:54:00:00:00:01", false)).await;
    let until_ms = Some(i64::MAX);
    let asleep = Unavailability { why: "asleep".to_owned(), until_ms };
    connect_and_leave(
        &farm,
        Hello { unavailable: Some(asleep), ..sleepy(2, "asleep", "52:54:00:00:00:02", true) },
    )
    .await;
    connect_and_leave(&farm, Hello { blenders: Vec::new(), ..sleepy(3, "bare", "52:54:00:00:00:03", true) })
        .await;
    connect_and_leave(&farm, sleepy(4, "paused", "52:54:00:00:00:04", true)).await;
    farm.client.tell_worker("paused", "pause").await.unwrap();
    connect_and_leave(&farm, sleepy(9, "ready", "52:54:00:00:00:09", true)).await;
    // The descriptions of workers outlive the server.
    let change = |options: &mut ServerOptions| {
        (options.wake_to, options.wake_after) = (Some(targets), Duration::ZERO);
    };
    let farm = farm.restart_with(change).await;
    let paused = farm.submit("1-3").await;
    farm.post(&format!("/api/v1/jobs/{}/pause", paused.id), json!({})).await;
    let silence = async |card: &UdpSocket| {
        assert!(timeout(Duration::from_secs(7), card.recv(&mut [0; 200])).await.is_err());
    };
    silence(&card).await;
    farm.submit("1-3").await;
    assert_eq!(call(&card).await[11], 9, "only this one is called");
    // The worker is not woken again soon.
    silence(&card).await;
}

#[tokio::test]
async fn a_machine_that_could_bake_and_not_render_is_woken_for_the_bake() {
    let (card, targets) = card().await;
    let farm = Farm::start().await;
    // Its GPU is too small for the frames, and a bake takes none.
    let mut small = sleepy(5, "small", "52:54:00:00:00:05", true);
    let class = DeviceClass::Cuda;
    let memory = Some(4 << 30);
    for blender in &mut small.blenders {
        blender.devices.push(DeviceOffer { class, name: "Made up".to_owned(), memory });
    }
    connect_and_leave(&farm, small).await;
    let farm = farm
        .restart_with(|options| (options.wake_to, options.wake_after) = (Some(targets), Duration::ZERO))
        .await;
    let id = farm.upload_of(std::fs::read(kiln_testkit::scene("rigid_body")).unwrap()).await;
    let job = json!({"source": {"upload": {"id": id}}, "frames": "1-3", "device": "cuda",
        "requirements": {"gpu_memory": 16_u64 << 30}});
    let answer = farm.post("/api/v1/jobs", job).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert_eq!(call(&card).await[11], 5);
}
