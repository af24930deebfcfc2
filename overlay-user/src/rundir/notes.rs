//! What agents note in the run directory for those who come after them.

use std::path::PathBuf;

use super::{RunDir, RunDirError, private};

impl RunDir {
    /// Notes the name of the overlay device, before it is made: whatever happens then, teardown knows it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn record_device(&self, name: &str) -> Result<(), RunDirError> {
        let path = self.device_file();
        private::write_note(&path, name).map_err(|source| RunDirError::Create { path, source })
    }

    /// The name of the overlay device, if one was noted.
    #[must_use]
    pub fn device(&self) -> Option<String> {
        private::read_note(&self.device_file())
    }

    /// Refuses an overlay device that is there and is not noted here: it may be that of another overlay, which forwards
    /// through it whether its agent runs or not.
    ///
    /// # Errors
    /// [`RunDirError::UnknownDevice`].
    pub fn refuse_unknown_device(&self, device: &str) -> Result<(), RunDirError> {
        if self.device().as_deref() == Some(device) {
            return Ok(());
        }
        Err(RunDirError::UnknownDevice { device: device.to_owned(), path: self.path.clone() })
    }

    /// Notes the value of `nf_conntrack_tcp_be_liberal`, before it is changed: teardown puts it back.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn record_conntrack(&self, value: &str) -> Result<(), RunDirError> {
        let path = self.conntrack_file();
        private::write_note(&path, value).map_err(|source| RunDirError::Create { path, source })
    }

    /// The value of `nf_conntrack_tcp_be_liberal` to put back, if one was noted.
    #[must_use]
    pub fn conntrack(&self) -> Option<String> {
        private::read_note(&self.conntrack_file())
    }

    pub(super) fn device_file(&self) -> PathBuf {
        self.path.join("device")
    }

    pub(super) fn conntrack_file(&self) -> PathBuf {
        self.path.join("conntrack")
    }
}
