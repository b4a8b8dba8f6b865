//! Which running gateway a verb asks.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use patronus_api::{Client, TlsTarget};

/// Which gateway to ask.
#[derive(Debug, Args)]
pub struct Gateway {
    /// Where the running gateway's API is
    #[arg(long, value_name = "SOCKET", default_value = patronus_api::SOCKET_PATH)]
    socket: PathBuf,
    /// A gateway elsewhere, by its URL.
    #[arg(
        long,
        help = "A gateway elsewhere, such as https://hq.example.net:9587",
        value_name = "URL",
        conflicts_with = "socket",
        requires = "token_file",
        requires = "ca"
    )]
    api: Option<String>,
    /// With --api: the file of the token
    #[arg(long, value_name = "FILE", requires = "api")]
    token_file: Option<PathBuf>,
    /// With --api: the file of the gateway's certificate, or of the one that signed it, in PEM
    #[arg(long, value_name = "FILE", requires = "api")]
    ca: Option<PathBuf>,
}

impl Gateway {
    /// Where its socket is, for what works on this machine only.
    ///
    /// # Errors
    /// It is asked by TCP.
    pub fn socket(&self) -> anyhow::Result<&Path> {
        match &self.api {
            None => Ok(&self.socket),
            Some(api) => {
                bail!("this asks a gateway on this machine only, not {api}: leave --api out")
            }
        }
    }

    /// A client of it.
    ///
    /// # Errors
    /// Nobody listens, or this user may not ask.
    pub fn connect(&self) -> anyhow::Result<Client> {
        let (Some(api), Some(token), Some(ca)) = (&self.api, &self.token_file, &self.ca) else {
            return Ok(Client::connect(&self.socket)?);
        };
        let secret = patronus_config::load::read_secret(token);
        let secret = secret.context("--token-file")?;
        let target = TlsTarget::new(api, ca, secret.trim()).context("--api")?;
        Ok(Client::connect_tls(target)?)
    }
}
