//! The errors of the server as a whole.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use kiln_blobs::BlobError;
use kiln_store::StoreError;

use crate::key::KeyError;

/// The reasons for which a server does not start, or has ended.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error(
        "Port {port} of {address} is in use; stop what uses it, or choose another with --listen {address}:PORT."
    )]
    PortInUse { address: IpAddr, port: u16 },
    #[error("Port {port} needs rights that you do not have; choose one above 1023 with --listen.")]
    PortForbidden { port: u16 },
    #[error("This machine has no address {address}; choose one of its own with --listen.")]
    NoSuchAddress { address: IpAddr },
    #[error("The server cannot listen on {listen}: {error}.")]
    Listen { listen: SocketAddr, error: io::Error },
    #[error(
        "Listening on {0} lets other machines reach the server while nothing is encrypted; say --insecure if the network is trusted."
    )]
    NeedsInsecure(SocketAddr),
    #[error("Another Kiln server already uses the data folder {}; stop it, or choose another folder with --data.", .0.display())]
    DataInUse(PathBuf),
    #[error("The data folder {} cannot be used: {error}; choose another with --data.", folder.display())]
    Data { folder: PathBuf, error: io::Error },
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("The server's records: {0}.")]
    Store(StoreError),
    #[error("The server's bytes: {0}.")]
    Blobs(#[from] BlobError),
    #[error("The server failed inside: {0}.")]
    Inside(String),
}

impl From<StoreError> for ServerError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::AlreadyRunning(folder) => Self::DataInUse(folder),
            other => Self::Store(other),
        }
    }
}
