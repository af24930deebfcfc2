//! [`Containers`]: what the programs are told of local containers, and where they are attached for them.

use std::{collections::BTreeMap, future, path::Path, time::Duration};

use super::owners::Owners;
use crate::{
    endpoints::Endpoints,
    interface_name::interface_name,
    loader::{ContainerProgram, Interface, LoadError, Programs},
};

/// How long to wait before an attachment that was refused is tried again.
const RETRY: Duration = Duration::from_millis(50);
/// After how many attempts it is reported: some seconds.
const REPORTED: u32 = 60;

/// The containers as the programs know them.
pub(super) struct Containers {
    v4: Owners<[u8; 4]>,
    v6: Owners<[u8; 16]>,
    /// The programs on each veth, the most urgent first.
    programs: &'static [ContainerProgram],
    /// What is attached to veths, by index, with the name that an index had then; none where that is to be done again: an
    /// earlier agent has attached it, or somebody has detached it. The kernel gives an index to another interface when it is
    /// told to.
    attached: BTreeMap<(ContainerProgram, u32), Option<String>>,
    /// What could not be attached and is to be tried again later, with the number of attempts.
    refused: BTreeMap<(ContainerProgram, u32), u32>,
    found: Endpoints,
}

impl Containers {
    /// Takes over what an earlier agent has left, as it is, until the first [`follow`](Self::follow).
    ///
    /// # Errors
    /// When map or links cannot be read.
    pub(super) fn open(maps: &Path, programs: &Programs, fast_path: bool) -> anyhow::Result<Self> {
        let attached = programs.attached_containers()?.into_iter().map(|attached| (attached, None)).collect();
        let programs: &[_] =
            if fast_path { &[ContainerProgram::From, ContainerProgram::To] } else { &[ContainerProgram::From] };
        let (v4, v6) = (Owners::open(maps)?, Owners::open(maps)?);
        Ok(Self { v4, v6, programs, attached, refused: BTreeMap::new(), found: Endpoints::default() })
    }

    /// Puts the programs into all links that an earlier agent has left, because of the maps that they use.
    pub(super) fn replace_all(&mut self, programs: &mut Programs) {
        for &(program, index) in self.attached.keys().filter(|(program, _)| self.programs.contains(program)) {
            // Whoever has left meanwhile needs no program.
            let Some(name) = interface_name(index) else { continue };
            if let Err(error) = programs.attach_container(program, Interface { name: &name, index }) {
                tracing::debug!(%error, interface = %name, "program not replaced yet");
            }
        }
    }

    /// Takes in what containers there are now: who is gone is forgotten at once. For the new ones, see
    /// [`attach_next`](Self::attach_next).
    pub(super) fn follow(&mut self, programs: &Programs, found: Endpoints) {
        self.found = found;
        self.refused.retain(|(_, index), _| self.found.containers.contains_key(index));
        self.enter();
        self.attached.retain(|&(program, index), _| {
            if self.found.containers.contains_key(&index) && self.programs.contains(&program) {
                return true;
            }
            match programs.detach_container(program, index) {
                Ok(()) => tracing::debug!(program = program.name(), index, "detached"),
                Err(error) => tracing::warn!(%error, "container not detached"),
            }
            false
        });
    }

    /// Takes note that a program is not attached to a container's veth any more: it is due again. What is pinned is not
    /// forgotten, since the container may leave before.
    pub(super) fn was_detached(&mut self, program: &str, index: u32) {
        for (&(attached, veth), name) in &mut self.attached {
            if (attached.name(), veth) == (program, index) {
                *name = None;
            }
        }
    }

    /// Waits until a program is to be attached: not at all, when one is; for ever, when all are.
    pub(super) async fn due(&self) {
        if self.next().is_some() {
            // Behind everything that is ready, so that new containers delay nobody else.
            tokio::task::yield_now().await;
        } else if self.refused.is_empty() {
            future::pending::<()>().await;
        } else {
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Attaches one program that is [due](Self::due). The kernel waits for all CPUs at each (RCU), so a thousand new
    /// containers in one go would keep the agent from everything else.
    pub(super) fn attach_next(&mut self, programs: &mut Programs) {
        let Some((program, index, name)) = self.next().or_else(|| self.refused()) else { return };
        let name = name.to_owned();
        match programs.attach_container(program, Interface { name: &name, index }) {
            Ok(()) => {
                self.refused.remove(&(program, index));
                self.attached.insert((program, index), Some(name));
                // Not before: whatever has an entry is guarded.
                self.enter();
            }
            Err(error) => {
                let attempts = self.refused.entry((program, index)).or_default();
                *attempts += 1;
                report_unattached(&name, &error, *attempts);
            }
        }
    }

    /// The next program to attach, with the index and the name of the veth: all containers are guarded before the fast
    /// path is opened to any.
    fn next(&self) -> Option<(ContainerProgram, u32, &str)> {
        self.programs.iter().find_map(|&program| {
            self.found.containers.iter().find_map(|(&index, container)| {
                let key = (program, index);
                let is_attached = self.attached.get(&key).is_some_and(|name| name.as_ref() == Some(&container.name));
                (!is_attached && !self.refused.contains_key(&key)).then_some((program, index, container.name.as_str()))
            })
        })
    }

    /// What was refused the fewest times.
    fn refused(&self) -> Option<(ContainerProgram, u32, &str)> {
        let (&(program, index), _) = self.refused.iter().min_by_key(|(_, attempts)| **attempts)?;
        Some((program, index, self.found.containers.get(&index)?.name.as_str()))
    }

    /// Makes the maps equal to what was found of guarded containers.
    fn enter(&mut self) {
        let guarded = |index| self.attached.contains_key(&(ContainerProgram::From, index));
        for entered in [self.v4.enter(&self.found, guarded), self.v6.enter(&self.found, guarded)] {
            if let Err(error) = entered {
                tracing::warn!(%error, "addresses of containers not entered");
            }
        }
    }
}

/// Reports what is still so after some time. A container that is gone by now is nothing special, the next finding will not
/// have it; and where one has left the bridge and is back, the kernel takes a moment to let go of the old program.
fn report_unattached(name: &str, error: &LoadError, attempts: u32) {
    if attempts == REPORTED {
        tracing::warn!(%error, interface = name, "container not attached; it may send with any address");
    } else {
        tracing::debug!(%error, interface = name, attempts, "container not attached");
    }
}
