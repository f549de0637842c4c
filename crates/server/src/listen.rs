//! The listening socket and its connections: limits for slow and for many clients, and an orderly end.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    connections::{Connection, ConnectionLimits, Connections},
    error::ServerError,
};

/// The time for a request head to arrive, and for which a connection may be idle. Longer than clients keep idle
/// connections (90 s is common), so that no client sends into one that is closing.
const HEAD_TIME: Duration = Duration::from_secs(120);
/// The time within which a request must show the key: opening a connection costs a client nothing.
const AUTHENTICATION_TIME: Duration = Duration::from_secs(15);
/// The time that a request in progress has when the server stops, or the connection is cut off.
const GRACE: Duration = Duration::from_secs(3);

pub(crate) async fn bind(listen: SocketAddr) -> Result<TcpListener, ServerError> {
    TcpListener::bind(listen).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => ServerError::PortInUse { address: listen.ip(), port: listen.port() },
        io::ErrorKind::PermissionDenied => ServerError::PortForbidden { port: listen.port() },
        io::ErrorKind::AddrNotAvailable => ServerError::NoSuchAddress { address: listen.ip() },
        _ => ServerError::Listen { listen, error },
    })
}

/// Raises the limit of open files to what the system allows this process, and returns it: a connection is an open file,
/// and many systems allow a thousand unless asked for more.
pub(crate) fn raise_file_limit() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::debug!(%error, "file limit not raised");
    }
    let files = getrlimit(Resource::Nofile).current;
    files.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX)
}

/// Serves until `stop`, then lets requests in progress end.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
    limits: ConnectionLimits,
) {
    let all = Connections::new(limits);
    let connections = TaskTracker::new();
    loop {
        let (stream, from) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // No file descriptor is free, or the client has left: neither ends the server.
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let counted = all.admit(from.ip());
        connections.spawn(serve_connection(stream, router.clone(), stop.clone(), counted));
    }
    drop(listener);
    connections.close();
    let _ = tokio::time::timeout(GRACE, connections.wait()).await;
}

async fn serve_connection(
    stream: TcpStream,
    router: Router,
    stop: CancellationToken,
    counted: Arc<Connection>,
) {
    // Clients wait for each answer, and answers are small: none must wait until a packet is full.
    let _ = stream.set_nodelay(true);
    let (router, with) = (TowerToHyperService::new(router), counted.clone());
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        // For the check of the key, and for a WebSocket, which counts as long as it is open.
        request.extensions_mut().insert(with.clone());
        router.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_headers(100)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let unauthenticated = async {
        tokio::select! {
            () = counted.authenticated.cancelled() => std::future::pending().await,
            () = tokio::time::sleep(AUTHENTICATION_TIME) => (),
        }
    };
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = counted.evicted.cancelled() => return,
        () = async { tokio::select! { () = stop.cancelled() => (), () = unauthenticated => () } } => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(GRACE, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection failed");
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use axum::{Extension, http::StatusCode, response::IntoResponse, routing::get};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpSocket,
        task::JoinHandle,
    };

    use super::*;

    struct Listening {
        address: SocketAddr,
        stop: CancellationToken,
        task: JoinHandle<()>,
    }

    impl Listening {
        /// Starts a server with an open path and one that authenticates its connection.
        async fn start(limits: ConnectionLimits) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let keyed = |Extension(connection): Extension<Arc<Connection>>| async move {
                match connection.authenticate() {
                    Ok(()) => StatusCode::OK.into_response(),
                    Err(fault) => fault.into_response(),
                }
            };
            let router = Router::new().route("/open", get(|| async {})).route("/keyed", get(keyed));
            let stop = CancellationToken::new();
            let task = tokio::spawn(serve(listener, router, stop.clone(), limits));
            Self { address, stop, task }
        }

        /// Connects from 127.0.0.N.
        async fn connect(&self, from: u8) -> TcpStream {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, from)), 0)).unwrap();
            socket.connect(self.address).await.unwrap()
        }

        async fn end(self) {
            self.stop.cancel();
            self.task.await.unwrap();
        }
    }

    async fn ask(stream: &mut TcpStream, path: &str) -> Option<u16> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = vec![0; 4096];
        let count = stream.read(&mut answer).await.ok()?;
        std::str::from_utf8(answer.get(9..12).filter(|_| count > 12)?).ok()?.parse().ok()
    }

    /// Returns whether the other side has closed it.
    async fn is_closed(stream: &mut TcpStream) -> bool {
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut [0; 16])).await;
        matches!(read, Ok(Ok(0) | Err(_)))
    }

    const SMALL: ConnectionLimits = ConnectionLimits {
        authenticated: 4,
        authenticated_per_address: 3,
        unauthenticated: 8,
        unauthenticated_per_network: 4,
    };

    #[test]
    fn the_process_may_open_what_the_system_allows() {
        use rustix::process::{Resource, getrlimit};
        let files = raise_file_limit();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert_eq!(files as u64, limit.maximum.unwrap_or(u64::MAX));
    }

    /// The paused clock advances whenever all tasks wait, so the test takes no seconds.
    #[tokio::test(start_paused = true)]
    async fn a_connection_that_shows_no_key_is_cut_off() {
        let server = Listening::start(ConnectionLimits::of(1024)).await;
        let begin = tokio::time::Instant::now();
        let mut silent = server.connect(1).await;
        let mut slow = server.connect(1).await;
        slow.write_all(b"GET /open HTTP/1.1\r\nHost: loc").await.unwrap();
        let mut open = server.connect(1).await;
        assert_eq!(ask(&mut open, "/open").await, Some(200));
        let mut keyed = server.connect(1).await;
        assert_eq!(ask(&mut keyed, "/keyed").await, Some(200));
        for stream in [&mut silent, &mut slow, &mut open] {
            assert_eq!(stream.read(&mut [0; 16]).await.unwrap_or(0), 0);
            let waited = begin.elapsed();
            assert!(waited >= AUTHENTICATION_TIME && waited < HEAD_TIME, "{waited:?}");
        }
        assert_eq!(ask(&mut keyed, "/open").await, Some(200), "one with the key stays open");
        server.end().await;
    }

    #[tokio::test]
    async fn slow_clients_block_nobody() {
        let server = Listening::start(SMALL).await;
        let mut before = server.connect(9).await;
        assert_eq!(ask(&mut before, "/keyed").await, Some(200));
        let mut slow = Vec::new();
        for from in [2, 3, 4] {
            for _ in 0..10 {
                let mut stream = server.connect(from).await;
                // One that is evicted already takes no bytes.
                let _ = stream.write_all(b"GET /keyed HTTP/1.1\r\nHost: l").await;
                slow.push(stream);
            }
        }
        // From elsewhere, and from an address that the slow ones have filled.
        for from in [5, 2] {
            let mut stream = server.connect(from).await;
            assert_eq!(ask(&mut stream, "/keyed").await, Some(200), "127.0.0.{from}");
        }
        assert!(is_closed(&mut slow[0]).await, "the oldest is not evicted");
        assert_eq!(ask(&mut before, "/keyed").await, Some(200));
        server.end().await;
    }

    #[tokio::test]
    async fn a_connection_too_many_is_told_so() {
        let server = Listening::start(SMALL).await;
        let mut served = Vec::new();
        for _ in 0..SMALL.authenticated_per_address {
            let mut stream = server.connect(2).await;
            assert_eq!(ask(&mut stream, "/keyed").await, Some(200));
            served.push(stream);
        }
        let mut more = server.connect(2).await;
        assert_eq!(ask(&mut more, "/keyed").await, Some(503), "more than one address may have");
        let mut other = server.connect(3).await;
        assert_eq!(ask(&mut other, "/keyed").await, Some(200));
        let mut last = server.connect(4).await;
        assert_eq!(ask(&mut last, "/keyed").await, Some(503), "more than all may have");
        drop(other);
        let begin = std::time::Instant::now();
        while ask(&mut server.connect(4).await, "/keyed").await != Some(200) {
            assert!(begin.elapsed() < Duration::from_secs(10), "a closed connection is still counted");
        }
        server.end().await;
    }
}
