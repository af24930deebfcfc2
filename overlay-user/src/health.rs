//! [`Health`]: whether traffic can flow, and the server that answers those who ask.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use axum::{Router, extract::State, http::StatusCode, routing::any};
use tokio::{net::TcpListener, sync::watch};

/// Whether traffic can flow, as far as the agent knows. Cloning yields another handle to the same.
#[derive(Debug, Clone)]
pub struct Health(Arc<watch::Sender<Obstacles>>);

/// What keeps traffic from flowing.
#[derive(Debug, Default)]
struct Obstacles {
    starting: bool,
    subnet_held_by: Option<Ipv4Addr>,
    underlay: Option<&'static str>,
}

/// The health server cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("answer health checks on {address}: choose another --healthz-ip or --healthz-port")]
pub struct HealthError {
    address: SocketAddr,
    source: io::Error,
}

impl Default for Health {
    /// That of an agent that has only begun to start.
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Obstacles { starting: true, ..Obstacles::default() })))
    }
}

impl Health {
    /// The data path is set up.
    pub fn started(&self) {
        self.0.send_modify(|obstacles| obstacles.starting = false);
    }

    /// Our subnet is held by another node, or by nobody but us.
    pub fn subnet_held_by(&self, node: Option<Ipv4Addr>) {
        self.0.send_modify(|obstacles| obstacles.subnet_held_by = node);
    }

    /// The underlay interface is in a state that carries no traffic, or it does carry traffic.
    pub fn underlay(&self, state: Option<&'static str>) {
        self.0.send_modify(|obstacles| obstacles.underlay = state);
    }

    /// Why traffic cannot flow, if it cannot.
    #[must_use]
    pub fn obstacle(&self) -> Option<String> {
        let obstacles = self.0.borrow();
        if obstacles.starting {
            return Some("starting: the data path is not set up".to_owned());
        }
        let subnet = obstacles.subnet_held_by.map(|node| format!("our subnet is held by {node}"));
        subnet.or_else(|| obstacles.underlay.map(|state| format!("the underlay interface is {state}")))
    }

    /// Listens on `address` and answers from now on: `/healthz` as flanneld does, for as long as the agent runs; `/readyz`
    /// with 200 while traffic can flow, otherwise with 503 and the reason.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn serve(&self, address: SocketAddr) -> Result<(), HealthError> {
        let listener = TcpListener::bind(address).await.map_err(|source| HealthError { address, source })?;
        let router = Router::new()
            // flanneld's words.
            .route("/healthz", any(async || "flanneld is running"))
            .route("/readyz", any(async |State(health): State<Self>| health.answer()))
            .with_state(self.clone());
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::warn!(%error, "health checks are no longer answered");
            }
        });
        Ok(())
    }

    fn answer(&self) -> (StatusCode, String) {
        match self.obstacle() {
            None => (StatusCode::OK, "ready".to_owned()),
            Some(obstacle) => (StatusCode::SERVICE_UNAVAILABLE, obstacle),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_flows_when_nothing_is_in_its_way() {
        let health = Health::default();
        health.underlay(Some("down"));
        assert_eq!(health.obstacle().as_deref(), Some("starting: the data path is not set up"));
        health.started();
        assert_eq!(health.obstacle().as_deref(), Some("the underlay interface is down"));
        health.subnet_held_by(Some(Ipv4Addr::new(192, 0, 2, 7)));
        assert_eq!(health.obstacle().as_deref(), Some("our subnet is held by 192.0.2.7"));
        health.underlay(None);
        health.subnet_held_by(None);
        assert_eq!(health.obstacle(), None);
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_named_with_the_flags() {
        let taken = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = Health::default().serve(address).await.unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("--healthz-port"), "{error}");
    }
}
