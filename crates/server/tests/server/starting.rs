//! Starting, stopping, and every reason not to start.

use std::{net::TcpListener, os::unix::fs::PermissionsExt};

use kiln_server::{Server, ServerError, ServerFile};
use kiln_store::StoreError;
use sqlx::{Connection, SqliteConnection};

use crate::support::{Farm, options, problem, soon};

#[tokio::test]
async fn leaves_its_address_while_it_runs() {
    let mut farm = Farm::start().await;
    let data = farm.data.path().to_owned();
    let file = ServerFile::read(&data).unwrap();
    assert_eq!((file.url.as_str(), file.pid), (farm.url.as_str(), std::process::id()));
    let key = std::fs::read_to_string(data.join("farm.key")).unwrap();
    assert_eq!(key.trim(), farm.key);
    let mode = std::fs::metadata(data.join("farm.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(farm.client.check().await.unwrap().epoch.0, 1);
    farm.stop().await;
    assert_eq!(ServerFile::read(&data), None);
}

#[tokio::test]
async fn a_port_in_use_is_named_and_nothing_is_left_behind() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    let mut options = options(&data);
    options.listen = taken.local_addr().unwrap();
    let error = Server::start(options.clone()).await.unwrap_err();
    assert!(matches!(error, ServerError::PortInUse { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(&options.listen.port().to_string()) && text.contains("--listen"), "{text}");
    assert!(!data.exists());
}

#[tokio::test]
async fn a_second_server_on_the_same_data_is_refused() {
    let farm = Farm::start().await;
    let mut second = options(farm.data.path());
    let error = Server::start(second.clone()).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, ServerError::DataInUse(_)), "{error:?}");
    assert!(text.contains(&farm.data.path().display().to_string()) && text.contains("--data"), "{text}");
    // Also where it would have taken the same port: the folder is the reason that helps.
    second.listen = farm.url.strip_prefix("http://").unwrap().parse().unwrap();
    let error = Server::start(second).await.unwrap_err();
    assert!(matches!(error, ServerError::DataInUse(_)), "{error:?}");
    // The first one is unharmed.
    farm.client.check().await.unwrap();
    assert_eq!(ServerFile::read(farm.data.path()).unwrap().url, farm.url);
}

#[tokio::test]
async fn beyond_loopback_only_when_told() {
    let data = tempfile::tempdir().unwrap();
    let mut options = options(data.path());
    options.listen = "0.0.0.0:0".parse().unwrap();
    let error = Server::start(options.clone()).await.unwrap_err();
    assert!(error.to_string().contains("--insecure"), "{error}");
    options.insecure = true;
    let server = soon("a start", Server::start(options)).await.unwrap();
    assert!(server.url().starts_with("http://127.0.0.1:"), "{}", server.url());
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_folder_that_cannot_be_one() {
    let place = tempfile::NamedTempFile::new().unwrap();
    let error = Server::start(options(place.path())).await.unwrap_err();
    assert!(matches!(error, ServerError::Data { .. }), "{error:?}");
    assert!(error.to_string().contains("--data"), "{error}");
}

#[tokio::test]
async fn the_key_and_the_records_outlive_the_server() {
    let farm = Farm::start().await;
    let (key, job) = (farm.key.clone(), farm.submit("1-3").await);
    let farm = farm.restart().await;
    assert_eq!(farm.key, key);
    let again = farm.client.job(job.id).await.unwrap();
    assert_eq!((again.spec, again.tasks.waiting), (job.spec, 3));
    assert_eq!(farm.client.check().await.unwrap().epoch.0, 2);
}

#[tokio::test]
async fn nothing_is_acknowledged_that_cannot_be_written() {
    let mut farm = Farm::start().await;
    let job = farm.submit("1-3").await;
    // Another server takes the records over.
    let database = format!("sqlite://{}", farm.data.path().join("kiln.db").display());
    let mut database = SqliteConnection::connect(&database).await.unwrap();
    sqlx::query("UPDATE meta SET epoch = epoch + 1").execute(&mut database).await.unwrap();
    database.close().await.unwrap();
    let refused = farm.request(reqwest::Method::POST, &format!("/api/v1/jobs/{}/pause", job.id)).send().await;
    assert_eq!(problem(refused.unwrap()).await.status, 500);
    let error = farm.fall().await;
    assert!(matches!(error, ServerError::Store(StoreError::Superseded { .. })), "{error:?}");
    assert_eq!(ServerFile::read(farm.data.path()), None);
    let farm = Farm::start_in(farm.data, |_| ()).await;
    assert_eq!(farm.client.job(job.id).await.unwrap().state, kiln_types::JobState::Queued);
}
