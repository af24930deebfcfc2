//! Programs that somebody has detached are attached again.

use anyhow::Result;

use super::Node;
use crate::loader;

impl Node {
    /// Attaches again what is not where it should be. Those for containers are only noted, and
    /// [due](Self::attachment_due) then.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn attach_missing(&mut self) -> Result<()> {
        // What has lost its interface comes back with that: see `follow_underlay` and `renew_device`.
        let missing = |place: &loader::Place| !place.is_attached && place.interface.is_some();
        let missing: Vec<_> = loader::places(&self.run_dir)?.into_iter().filter(missing).collect();
        for place in &missing {
            let (program, interface) = (place.program.name(), place.interface.as_deref());
            tracing::warn!(program, interface, "somebody has detached a program; attaching it again");
            self.containers.was_detached(program, place.index);
        }
        if missing.iter().all(loader::Place::is_containers) { Ok(()) } else { self.attach().await }
    }
}
