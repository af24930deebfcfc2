//! [`EtcdOptions`]: how to reach an etcd cluster.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};

use crate::datastore::{DatastoreError, LEASE_TTL};

/// How to reach an etcd cluster, and where in it our keys are.
#[derive(Clone)]
pub struct EtcdOptions {
    /// Endpoints such as `http://192.0.2.1:2379` or `https://[2001:db8::1]:2379`, tried one after another.
    pub endpoints: Vec<String>,
    /// What all keys begin with, without a slash at the end.
    pub prefix: String,
    /// The client certificate, PEM. Together with `key_file`.
    pub cert_file: Option<PathBuf>,
    /// The client certificate's key, PEM.
    pub key_file: Option<PathBuf>,
    /// Who may have signed the servers' certificates, PEM; the system's authorities when absent.
    pub ca_file: Option<PathBuf>,
    /// User name and password.
    pub user: Option<(String, String)>,
    /// How long one call to one endpoint may take.
    pub timeout: Duration,
    /// How long a lease lives that nobody renews.
    pub ttl: Duration,
}

impl Default for EtcdOptions {
    /// flannel's defaults.
    fn default() -> Self {
        Self {
            endpoints: vec!["http://127.0.0.1:4001".to_owned(), "http://127.0.0.1:2379".to_owned()],
            prefix: "/coreos.com/network".to_owned(),
            cert_file: None,
            key_file: None,
            ca_file: None,
            user: None,
            timeout: Duration::from_secs(5),
            ttl: LEASE_TTL,
        }
    }
}

impl std::fmt::Debug for EtcdOptions {
    /// All but the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdOptions")
            .field("endpoints", &self.endpoints)
            .field("prefix", &self.prefix)
            .field("cert_file", &self.cert_file)
            .field("key_file", &self.key_file)
            .field("ca_file", &self.ca_file)
            .field("user", &self.user.as_ref().map(|(name, _)| name))
            .field("timeout", &self.timeout)
            .field("ttl", &self.ttl)
            .finish()
    }
}

impl EtcdOptions {
    /// The endpoints of a comma list as flannel's `--etcd-endpoints` takes it. One without a scheme is `http://`, as
    /// in flannel.
    #[must_use]
    pub fn endpoints_from(list: &str) -> Vec<String> {
        let full = |endpoint: &str| match endpoint.contains("://") {
            true => endpoint.to_owned(),
            false => format!("http://{endpoint}"),
        };
        list.split(',').map(str::trim).filter(|endpoint| !endpoint.is_empty()).map(full).collect()
    }

    /// The client options for one endpoint.
    pub(super) fn connect_options(&self) -> Result<ConnectOptions, DatastoreError> {
        // etcd closes connections that ping more often than every 5 s, or while nothing is under way.
        let mut options = ConnectOptions::new()
            .with_connect_timeout(self.timeout)
            .with_keep_alive(Duration::from_secs(10), self.timeout)
            .with_keep_alive_while_idle(false)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let Some((name, password)) = &self.user {
            options = options.with_user(name, password);
        }
        Ok(options)
    }

    /// What `https` endpoints need.
    pub(super) fn tls(&self) -> Result<TlsOptions, DatastoreError> {
        let tls = match &self.ca_file {
            Some(file) => TlsOptions::new().ca_certificate(Certificate::from_pem(read(file)?)),
            None => TlsOptions::new().with_native_roots(),
        };
        match (&self.cert_file, &self.key_file) {
            (Some(cert), Some(key)) => Ok(tls.identity(Identity::from_pem(read(cert)?, read(key)?))),
            (None, None) => Ok(tls),
            _ => Err(self.refused("a client certificate needs --etcd-certfile and --etcd-keyfile, both")),
        }
    }

    pub(super) fn refused(&self, reason: &str) -> DatastoreError {
        DatastoreError::Refused {
            operation: "connect to etcd".to_owned(),
            store: self.endpoints.join(","),
            reason: reason.to_owned(),
        }
    }
}

fn read(file: &Path) -> Result<Vec<u8>, DatastoreError> {
    std::fs::read(file).map_err(|error| DatastoreError::Refused {
        operation: "read a TLS file for etcd".to_owned(),
        store: file.display().to_string(),
        reason: match error.kind() {
            ErrorKind::PermissionDenied => {
                format!("{error}; let this user read it, or give this process CAP_DAC_READ_SEARCH")
            }
            _ => error.to_string(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_come_as_a_comma_list() {
        let endpoints = EtcdOptions::endpoints_from("http://a:1, https://[::1]:2,,c:3");
        assert_eq!(endpoints, ["http://a:1", "https://[::1]:2", "http://c:3"]);
    }

    #[test]
    fn half_a_client_certificate_is_refused() {
        let options = EtcdOptions { cert_file: Some("/nonexistent".into()), ca_file: None, ..EtcdOptions::default() };
        assert!(options.tls().unwrap_err().to_string().contains("both"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let options = EtcdOptions { ca_file: Some("/nonexistent/ca.pem".into()), ..EtcdOptions::default() };
        let error = options.tls().unwrap_err();
        assert!(error.to_string().contains("/nonexistent/ca.pem") && !error.is_transient(), "{error}");
    }

    #[test]
    fn the_password_stays_out_of_debug_output() {
        let options = EtcdOptions { user: Some(("root".into(), "secret".into())), ..EtcdOptions::default() };
        assert!(!format!("{options:?}").contains("secret"));
    }
}
