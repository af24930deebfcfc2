//! [`Metrics`]: what Prometheus scrapes at `/metrics`.
//!
//! What the programs count is read from their pinned maps when it is asked for, what the agent knows from its state. The
//! operators' guide lists the metrics.

mod agent;
mod data_path;
mod families;
mod timed;

use std::{fmt, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use prometheus_client::{
    encoding::prometheus_text::{self, CONTENT_TYPE},
    metrics::info::Info,
    registry::Registry,
};

use self::{agent::Agent, data_path::DataPath, timed::Timed};
use crate::{agent::state::StateHandle, datastore::Datastore, health::Health, rundir::RunDir};

/// What Prometheus scrapes. Cloning yields another handle to the same.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    requests: timed::Requests,
}

impl Metrics {
    /// Of the data path in `run_dir`, and of an agent that has only begun to start.
    #[must_use]
    pub fn new(run_dir: &RunDir, health: Health, state: StateHandle) -> Self {
        let mut registry = Registry::with_prefix("overlay");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version of the agent", build);
        registry.register_collector(Box::new(Agent { health, state }));
        registry.register_collector(Box::new(DataPath::of(run_dir.clone())));
        let requests = timed::Requests::register(&mut registry);
        Self { registry: Arc::new(registry), requests }
    }

    /// The same datastore, whose requests are timed.
    #[must_use]
    pub fn time(&self, store: Arc<dyn Datastore>) -> Arc<dyn Datastore> {
        Arc::new(Timed::new(store, self.requests.clone()))
    }

    /// All metrics, in Prometheus' text format. Reads the maps, which takes a while where they are large.
    ///
    /// # Errors
    /// Never: the format is written to memory.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// Answers `/metrics`.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/metrics", get(async |State(metrics): State<Self>| metrics.answer().await))
            .with_state(self.clone())
    }

    async fn answer(self) -> Response {
        // The agent does not wait while the maps are read.
        match tokio::task::spawn_blocking(move || self.text()).await {
            Ok(Ok(text)) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
            _ => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    }
}
