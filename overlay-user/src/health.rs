//! [`Health`]: whether traffic can flow, and what is answered to those who ask.

use std::{net::Ipv4Addr, sync::Arc};

use axum::{Router, extract::State, http::StatusCode, routing::any};
use tokio::sync::watch;

/// Whether traffic can flow, as far as the agent knows. Cloning yields another handle to the same.
#[derive(Debug, Clone)]
pub struct Health(Arc<watch::Sender<Obstacles>>);

/// What keeps traffic from flowing.
#[derive(Debug, Default)]
struct Obstacles {
    starting: bool,
    subnet_held_by: Option<Ipv4Addr>,
    underlay: Option<&'static str>,
    no_device: bool,
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

    /// The overlay device is there, with its programs, or it is not.
    pub fn device(&self, is_there: bool) {
        self.0.send_modify(|obstacles| obstacles.no_device = !is_there);
    }

    /// Why traffic cannot flow, if it cannot.
    #[must_use]
    pub fn obstacle(&self) -> Option<String> {
        let obstacles = self.0.borrow();
        if obstacles.starting {
            return Some("starting: the data path is not set up".to_owned());
        }
        let subnet = obstacles.subnet_held_by.map(|node| format!("our subnet is held by {node}"));
        let underlay = || obstacles.underlay.map(|state| format!("the underlay interface is {state}"));
        let device = || obstacles.no_device.then(|| "the overlay device is gone".to_owned());
        subnet.or_else(underlay).or_else(device)
    }

    /// Answers `/healthz` as flanneld does, for as long as the agent runs; `/readyz` with 200 while traffic can flow,
    /// otherwise with 503 and the reason.
    pub fn router(&self) -> Router {
        Router::new()
            // flanneld's words.
            .route("/healthz", any(async || "flanneld is running"))
            .route("/readyz", any(async |State(health): State<Self>| health.answer()))
            .with_state(self.clone())
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
        health.device(false);
        assert_eq!(health.obstacle().as_deref(), Some("the overlay device is gone"));
        health.device(true);
        assert_eq!(health.obstacle(), None);
    }
}
