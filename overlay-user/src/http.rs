//! The servers that answer over HTTP: health checks and metrics, on one address or two.

use std::{io, net::SocketAddr};

use axum::Router;
use tokio::net::TcpListener;

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("answer {what} on {address}: {source}; choose another with {options}")]
pub struct HttpError {
    what: &'static str,
    address: SocketAddr,
    options: &'static str,
    source: io::Error,
}

/// What is answered at an address.
#[derive(Debug)]
pub struct Service {
    /// Where.
    pub address: SocketAddr,
    /// What, for messages.
    pub what: &'static str,
    /// The options that say where.
    pub options: &'static str,
    /// By whom.
    pub router: Router,
}

/// Listens and answers from now on. Services with one address share it.
///
/// # Errors
/// When an address cannot be listened on.
pub async fn serve(services: impl IntoIterator<Item = Service>) -> Result<(), HttpError> {
    let mut merged: Vec<Service> = Vec::new();
    for service in services {
        match merged.iter_mut().find(|other| other.address == service.address) {
            Some(other) => other.router = std::mem::take(&mut other.router).merge(service.router),
            None => merged.push(service),
        }
    }
    for Service { address, what, options, router } in merged {
        let failed = |source| HttpError { what, address, options, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::warn!(%error, %address, "{what} are no longer answered");
            }
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_is_taken_is_named_with_the_options() {
        let taken = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = taken.local_addr().unwrap();
        let service = Service { address, what: "health checks", options: "--healthz-port", router: Router::new() };
        let error = serve([service]).await.unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("--healthz-port"), "{error}");
    }
}
