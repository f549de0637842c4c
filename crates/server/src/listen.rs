//! The listening socket and its connections: limits for slow and for many clients, and an orderly end.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::ServerError;

/// A client that has not sent its whole request head by then is cut off; so is an idle connection. Longer than
/// clients keep idle connections (90 s is common), so that none sends into one that is closing.
const HEAD_TIME: Duration = Duration::from_secs(120);
/// Connections at a time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 2048;
/// How long requests in progress may go on when the server stops.
const GRACE: Duration = Duration::from_secs(3);

/// # Errors
/// One sentence, with what to do next.
pub(crate) async fn bind(listen: SocketAddr) -> Result<TcpListener, ServerError> {
    TcpListener::bind(listen).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => ServerError::PortInUse { address: listen.ip(), port: listen.port() },
        io::ErrorKind::PermissionDenied => ServerError::PortForbidden { port: listen.port() },
        io::ErrorKind::AddrNotAvailable => ServerError::NoSuchAddress { address: listen.ip() },
        _ => ServerError::Listen { listen, error },
    })
}

/// Serves until `stop`, then lets requests in progress end.
pub(crate) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        // Never closed, so the permit always comes.
        let Ok(place) = places.clone().acquire_owned().await else { break };
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file numbers, or a client that left in the middle: neither ends the server.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let (router, stop) = (router.clone(), stop.clone());
        connections.spawn(async move {
            connection(stream, router, stop).await;
            drop(place);
        });
    }
    drop(listener);
    connections.close();
    let _ = tokio::time::timeout(GRACE, connections.wait()).await;
}

async fn connection(stream: TcpStream, router: Router, stop: CancellationToken) {
    // Answers are small and awaited one by one: none must wait for more to fill a packet.
    let _ = stream.set_nodelay(true);
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_headers(100)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(GRACE, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
