//! [`Authority`]: certificates for TLS, made on the spot.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// Files of a certificate and its key.
#[derive(Debug)]
pub struct Pair {
    /// The certificate, PEM.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

/// A certificate authority in a directory.
pub struct Authority<'a> {
    directory: &'a Path,
    name: &'static str,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl<'a> Authority<'a> {
    /// A new authority; its own certificate is written to [`file`](Self::file).
    ///
    /// # Errors
    ///
    /// When a file cannot be written.
    pub fn new(directory: &'a Path, name: &'static str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let authority = Self { directory, name, issuer };
        fs::write(authority.file(), authority.issuer.pem())?;
        Ok(authority)
    }

    /// The authority's own certificate, PEM.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.directory.join(format!("{}.pem", self.name))
    }

    /// Signs a certificate for the loopback addresses.
    ///
    /// # Errors
    ///
    /// When a file cannot be written.
    pub fn issue(&self, name: &str) -> Result<Pair> {
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let key = KeyPair::generate()?;
        let cert = CertificateParams::new(names)?.signed_by(&key, &self.issuer)?;
        let file = |what: &str| self.directory.join(format!("{}-{name}.{what}", self.name));
        let pair = Pair { cert: file("pem"), key: file("key") };
        fs::write(&pair.cert, cert.pem())?;
        fs::write(&pair.key, key.serialize_pem())?;
        Ok(pair)
    }
}
