//! The WebSocket between a worker and its server, on the side of the worker.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use kiln_api::{Down, Up};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, client_async_with_config, connect_async_with_config,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest,
        http::{HeaderValue, Uri, header},
        protocol::WebSocketConfig,
    },
};

use crate::{Client, ClientError, error::innermost, routes};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For one message. A server that accepts nothing for this long is lost.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// For the message that closes the connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes. A Kiln server sends no longer message: an assignment has a few kilobytes.
const LARGEST_MESSAGE: usize = 16 << 20;
/// Bytes. They are cleared at each read, and most messages are short.
const READ_BUFFER: usize = 4 << 10;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// An open connection of a worker. It is closed when it is dropped.
pub struct WorkerLink {
    sender: LinkSender,
    receiver: LinkReceiver,
}

/// The half of the link that sends.
pub struct LinkSender {
    url: String,
    socket: SplitSink<Socket, Message>,
    /// The longest time that a message may wait for the other side.
    patience: Duration,
}

/// The half of the link that receives.
pub struct LinkReceiver {
    url: String,
    socket: SplitStream<Socket>,
}

impl Client {
    /// Opens the worker's WebSocket. The first message must be [`Up::Hello`].
    pub async fn connect_worker(&self) -> Result<WorkerLink, ClientError> {
        let url = self.url().to_owned();
        let unreachable = |why: String| ClientError::Unreachable { url: url.clone(), why };
        let address = format!("{}{}", url.replacen("http", "ws", 1), routes::worker_link());
        let mut request = address.into_client_request().map_err(|error| unreachable(innermost(&error)))?;
        let bearer = HeaderValue::from_str(&format!("Bearer {}", self.key()))
            .map_err(|_| ClientError::WrongKey { url: url.clone() })?;
        request.headers_mut().insert(header::AUTHORIZATION, bearer);
        let config = WebSocketConfig::default()
            .max_message_size(Some(LARGEST_MESSAGE))
            .max_frame_size(Some(LARGEST_MESSAGE))
            .read_buffer_size(READ_BUFFER);
        let connecting = async {
            let Some(from) = self.from() else {
                return connect_async_with_config(request, Some(config), true).await;
            };
            let stream = connect_from(from, request.uri()).await?;
            client_async_with_config(request, MaybeTlsStream::Plain(stream), Some(config)).await
        };
        let (socket, _) = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
            .await
            .map_err(|_| unreachable("no answer in time".to_owned()))?
            .map_err(|error| match error {
                Error::Http(response) if response.status() == 401 => {
                    ClientError::WrongKey { url: url.clone() }
                }
                Error::Http(response) if response.status() == 404 => {
                    ClientError::NotKiln { url: url.clone() }
                }
                Error::Http(response) => {
                    ClientError::Closed { url: url.clone(), why: format!("status {}", response.status()) }
                }
                other => unreachable(innermost(&other)),
            })?;
        let (sink, stream) = socket.split();
        Ok(WorkerLink {
            sender: LinkSender { url: url.clone(), socket: sink, patience: SEND_TIMEOUT },
            receiver: LinkReceiver { url, socket: stream },
        })
    }
}

/// Connects to the host of an address, from an address of this machine.
async fn connect_from(from: IpAddr, to: &Uri) -> Result<TcpStream, Error> {
    let host = to.host().unwrap_or_default().trim_matches(['[', ']']);
    let addresses = lookup_host((host, to.port_u16().unwrap_or(80))).await?;
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses.filter(|address| address.is_ipv4() == from.is_ipv4()) {
        let socket = if from.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind(SocketAddr::new(from, 0))?;
        match socket.connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => failed = error,
        }
    }
    Err(failed.into())
}

impl WorkerLink {
    pub async fn send(&mut self, up: &Up) -> Result<(), ClientError> {
        self.sender.send(up).await
    }

    pub async fn recv(&mut self) -> Result<Option<Down>, ClientError> {
        self.receiver.recv().await
    }

    /// Splits the link, so that one task can send while another receives.
    pub fn split(self) -> (LinkSender, LinkReceiver) {
        (self.sender, self.receiver)
    }
}

impl LinkSender {
    /// Sends a message. After an error the link cannot be used: a message may have been sent in part.
    pub async fn send(&mut self, up: &Up) -> Result<(), ClientError> {
        let closed = |why| ClientError::Closed { url: self.url.clone(), why };
        let text = serde_json::to_string(up).map_err(|error| closed(error.to_string()))?;
        match tokio::time::timeout(self.patience, self.socket.send(Message::text(text))).await {
            Ok(sent) => sent.map_err(|error| closed(innermost(&error))),
            Err(_) => Err(closed(format!("it took no message for {} s", self.patience.as_secs()))),
        }
    }

    /// Closes the connection, so that the server does not wait for its lease to expire.
    pub async fn close(&mut self) {
        // The link ends either way.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.socket.send(Message::Close(None))).await;
    }
}

impl LinkReceiver {
    /// Returns the next message, or `None` if the server closed the connection. Messages that only a newer version knows are
    /// skipped. Safe to cancel.
    pub async fn recv(&mut self) -> Result<Option<Down>, ClientError> {
        while let Some(message) = self.socket.next().await {
            match message {
                Ok(Message::Text(text)) => match serde_json::from_str(&text) {
                    Ok(down) => return Ok(Some(down)),
                    Err(error) => tracing::warn!(%error, "message skipped"),
                },
                Ok(Message::Close(_)) => return Ok(None),
                // Pings are answered by the library.
                Ok(_) => {}
                Err(Error::ConnectionClosed) => return Ok(None),
                Err(error) => {
                    return Err(ClientError::Closed { url: self.url.clone(), why: innermost(&error) });
                }
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{net::TcpListener, time::timeout};

    use super::*;

    #[tokio::test]
    async fn a_server_that_takes_nothing_ends_the_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::new(format!("http://{}", listener.local_addr().unwrap()), "key").unwrap();
        // It shakes hands, and then it is as if its power were gone: the connection is open, and nobody reads.
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            tokio_tungstenite::accept_async(stream).await.unwrap()
        });
        let mut link = client.connect_worker().await.unwrap();
        let _dead = server.await.unwrap();
        link.sender.patience = Duration::from_secs(1);
        let piece = Up::Log { attempt: "1-1".parse().unwrap(), text: "x".repeat(1 << 20) };
        let speaks = async {
            loop {
                if let Err(error) = link.send(&piece).await {
                    return error;
                }
            }
        };
        let error = timeout(Duration::from_secs(30), speaks).await.expect("it waits without end");
        assert!(error.is_transient(), "it is tried again");
        assert!(error.to_string().ends_with("it took no message for 1 s"), "{error}");
        timeout(Duration::from_secs(30), link.sender.close()).await.expect("nor does the goodbye");
    }
}
