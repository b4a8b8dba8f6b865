//! Which running gateway a verb asks.

use std::path::{Path, PathBuf};

use clap::Args;
use patronus_api::{Client, ClientError};

/// Which gateway to ask.
#[derive(Debug, Args)]
pub struct Gateway {
    /// Where the running gateway's API is
    #[arg(long, value_name = "SOCKET", default_value = patronus_api::SOCKET_PATH)]
    socket: PathBuf,
}

impl Gateway {
    /// Where its API is.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A client of it.
    ///
    /// # Errors
    /// Nobody listens, or this user may not ask.
    pub fn connect(&self) -> Result<Client, ClientError> {
        Client::connect(&self.socket)
    }
}
