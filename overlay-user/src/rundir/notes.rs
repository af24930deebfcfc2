//! What agents note in the run directory for those who come after them.

use std::path::PathBuf;

use super::{RunDir, RunDirError, private};

impl RunDir {
    /// Notes the names of the overlay devices, before they are made: whatever happens then, teardown knows them.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn record_devices(&self, names: &[String]) -> Result<(), RunDirError> {
        let path = self.device_file();
        private::write_note(&path, &names.join("\n")).map_err(|source| RunDirError::Create { path, source })
    }

    /// The names of the overlay devices that were noted.
    #[must_use]
    pub fn devices(&self) -> Vec<String> {
        let note = private::read_note(&self.device_file()).unwrap_or_default();
        note.lines().map(str::to_owned).collect()
    }

    /// Refuses an overlay device that is there and is not noted here: it may be that of another overlay, which forwards
    /// through it whether its agent runs or not.
    ///
    /// # Errors
    /// [`RunDirError::UnknownDevice`].
    pub fn refuse_unknown_device(&self, device: &str) -> Result<(), RunDirError> {
        if self.devices().iter().any(|noted| noted == device) {
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
