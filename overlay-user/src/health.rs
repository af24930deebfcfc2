//! [`Health`]: whether traffic can flow, and what is answered to those who ask.

use std::{net::IpAddr, sync::Arc};

use axum::{Router, extract::State, http::StatusCode, routing::any};
use tokio::sync::watch;

use crate::{loader, rundir::RunDir};

/// Whether traffic can flow, as far as the agent knows and the kernel says. Cloning yields another handle to the same.
#[derive(Debug, Clone)]
pub struct Health {
    known: Arc<watch::Sender<Obstacles>>,
    run_dir: RunDir,
}

/// What keeps traffic from flowing and was noticed. What nobody notices, detached programs, is asked for.
#[derive(Debug, Default)]
struct Obstacles {
    starting: bool,
    subnet_held_by: Option<IpAddr>,
    underlay: Option<&'static str>,
    no_device: bool,
}

impl Health {
    /// That of an agent that has only begun to start, and has its data path in `run_dir`.
    #[must_use]
    pub fn new(run_dir: RunDir) -> Self {
        let known = watch::Sender::new(Obstacles { starting: true, ..Obstacles::default() });
        Self { known: Arc::new(known), run_dir }
    }

    /// The data path is set up.
    pub fn started(&self) {
        self.known.send_modify(|obstacles| obstacles.starting = false);
    }

    /// Our subnet is held by another node, or by nobody but us.
    pub fn subnet_held_by(&self, node: Option<IpAddr>) {
        self.known.send_modify(|obstacles| obstacles.subnet_held_by = node);
    }

    /// The underlay interface is in a state that carries no traffic, or it does carry traffic.
    pub fn underlay(&self, state: Option<&'static str>) {
        self.known.send_modify(|obstacles| obstacles.underlay = state);
    }

    /// The overlay device is there, with its programs, or it is not.
    pub fn device(&self, is_there: bool) {
        self.known.send_modify(|obstacles| obstacles.no_device = !is_there);
    }

    /// Why traffic cannot flow, if it cannot.
    #[must_use]
    pub fn obstacle(&self) -> Option<String> {
        let known = self.known.borrow().first();
        known.or_else(|| match loader::node_places(&self.run_dir) {
            Ok(places) => places.iter().find(|place| !place.is_attached).map(ToString::to_string),
            Err(error) => Some(format!("the data path cannot be read: {error}")),
        })
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

impl Obstacles {
    fn first(&self) -> Option<String> {
        if self.starting {
            return Some("starting: the data path is not set up".to_owned());
        }
        let subnet = self.subnet_held_by.map(|node| format!("our subnet is held by {node}"));
        let underlay = || self.underlay.map(|state| format!("the underlay interface is {state}"));
        let device = || self.no_device.then(|| "the overlay device is gone".to_owned());
        subnet.or_else(underlay).or_else(device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_flows_when_nothing_is_in_its_way() {
        let first = |obstacles: &Obstacles| obstacles.first().unwrap_or_default();
        let mut obstacles = Obstacles { starting: true, underlay: Some("down"), ..Obstacles::default() };
        assert_eq!(first(&obstacles), "starting: the data path is not set up");
        obstacles.starting = false;
        assert_eq!(first(&obstacles), "the underlay interface is down");
        obstacles.subnet_held_by = Some(IpAddr::from([192, 0, 2, 7]));
        assert_eq!(first(&obstacles), "our subnet is held by 192.0.2.7");
        let obstacles = Obstacles { no_device: true, ..Obstacles::default() };
        assert_eq!(first(&obstacles), "the overlay device is gone");
        assert_eq!(Obstacles::default().first(), None);
    }

    #[test]
    fn a_data_path_that_nobody_can_read_is_in_its_way() {
        let health = Health::new(RunDir::new("/nonexistent".as_ref()));
        health.started();
        assert!(health.obstacle().is_some_and(|why| why.starts_with("the data path cannot be read: ")));
    }
}
