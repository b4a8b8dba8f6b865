//! Metrics on TCP, for a Prometheus that cannot ask a unix socket. Plain HTTP, so on this machine only, and nothing but
//! `GET /metrics`.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::api::{ApiState, Refused, serve_tcp};

/// The listener; gone when this is dropped.
#[derive(Debug)]
pub struct MetricsServer {
    accept: tokio::task::JoinHandle<()>,
    addr: SocketAddr,
}

impl MetricsServer {
    /// Listens.
    ///
    /// # Errors
    /// What the system answers, with what to do about it.
    pub async fn open(addr: SocketAddr, state: Arc<ApiState>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(addr).await.map_err(|error| {
            anyhow::anyhow!(
                "cannot serve metrics on {addr}: {error}; choose another [api] metrics_listen"
            )
        })?;
        let router = Router::new()
            .route("/metrics", get(get_metrics))
            .fallback(async || Refused::unknown_path())
            .method_not_allowed_fallback(async || Refused::wrong_method())
            .with_state(state.clone());
        let addr = listener.local_addr()?;
        let accept = tokio::spawn(serve_tcp(listener, router, state));
        Ok(Self { accept, addr })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

async fn get_metrics(State(state): State<Arc<ApiState>>) -> Result<Response, Refused> {
    crate::api::metrics_response(state).await
}
