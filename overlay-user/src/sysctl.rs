//! Kernel parameters of this network namespace, under `/proc/sys/net`.

use std::path::{Path, PathBuf};
use std::{fs, io};

use nix::unistd::{AccessFlags, access};

/// A kernel parameter could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SysctlError {
    /// It could not be read.
    #[error("read {}", .path.display())]
    Read {
        /// The parameter's file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It could not be written; as in a container with a read-only `/proc/sys`.
    #[error("write {value} to {}; set it from outside if /proc/sys is read-only here", .path.display())]
    Write {
        /// The parameter's file.
        path: PathBuf,
        /// What was to be written.
        value: String,
        /// Why.
        source: io::Error,
    },
}

/// One kernel parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctl(PathBuf);

impl Sysctl {
    /// `net.ipv4.NAME`.
    #[must_use]
    pub fn ipv4(name: &str) -> Self {
        Self(Path::new("/proc/sys/net/ipv4").join(name))
    }

    /// `net.ipv4.conf.INTERFACE.NAME`; the interface's name may contain dots.
    #[must_use]
    pub fn ipv4_conf(interface: &str, name: &str) -> Self {
        Self(Path::new("/proc/sys/net/ipv4/conf").join(interface).join(name))
    }

    /// `net.ipv6.conf.INTERFACE.NAME`.
    #[must_use]
    pub fn ipv6_conf(interface: &str, name: &str) -> Self {
        Self(Path::new("/proc/sys/net/ipv6/conf").join(interface).join(name))
    }

    /// `net.netfilter.NAME`.
    #[must_use]
    pub fn netfilter(name: &str) -> Self {
        Self(Path::new("/proc/sys/net/netfilter").join(name))
    }

    /// Whether this kernel has the parameter; without IPv6, none of IPv6 exists.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.0.exists()
    }

    /// Reads the value, without the newline.
    ///
    /// # Errors
    /// [`SysctlError::Read`].
    pub fn get(&self) -> Result<String, SysctlError> {
        let value = fs::read_to_string(&self.0).map_err(|source| SysctlError::Read { path: self.0.clone(), source })?;
        Ok(value.trim_end().to_owned())
    }

    /// Sets the value and says whether it was another one before; writes nothing when it was not.
    ///
    /// # Errors
    /// [`SysctlError`].
    pub fn set(&self, value: &str) -> Result<bool, SysctlError> {
        if self.get()? == value {
            return Ok(false);
        }
        fs::write(&self.0, value).map_err(|source| self.not_written(value, source))?;
        Ok(true)
    }

    /// Whether [`set`](Self::set) would change the value. Changes nothing.
    ///
    /// # Errors
    /// [`SysctlError`] where it would fail.
    pub fn would_set(&self, value: &str) -> Result<bool, SysctlError> {
        if self.get()? == value {
            return Ok(false);
        }
        access(&self.0, AccessFlags::W_OK).map_err(|errno| self.not_written(value, errno.into()))?;
        Ok(true)
    }

    fn not_written(&self, value: &str, source: io::Error) -> SysctlError {
        SysctlError::Write { path: self.0.clone(), value: value.to_owned(), source }
    }
}
