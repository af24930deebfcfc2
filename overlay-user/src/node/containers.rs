//! [`Containers`]: what the programs are told of local containers, and where they are attached for them.

use std::{collections::BTreeMap, future, mem, path::Path, time::Duration};

use super::owners::Owners;
use crate::{
    endpoints::Endpoints,
    interface_name::interface_name,
    loader::{ContainerProgram, Interface, LoadError, Programs},
};

/// How long to wait before an attachment that was refused is tried again.
const RETRY: Duration = Duration::from_millis(50);
/// The same once all that was refused is reported: the verifier has much to do for a program before it refuses.
const RETRY_REPORTED: Duration = Duration::from_secs(1);
/// After how many attempts that may still succeed it is reported: some seconds.
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
    /// What could not be attached and is to be tried again later.
    refused: BTreeMap<(ContainerProgram, u32), Refused>,
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
            let is_reported = self.refused.values().all(|refused| refused.is_reported);
            tokio::time::sleep(if is_reported { RETRY_REPORTED } else { RETRY }).await;
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
                let refused = self.refused.entry((program, index)).or_default();
                if refused.is_to_be_reported(&error) {
                    report_unattached(program, &name, &error);
                } else {
                    let attempts = refused.attempts;
                    tracing::debug!(%error, interface = %name, attempts, "container not attached");
                }
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
        let (&(program, index), _) = self.refused.iter().min_by_key(|(_, refused)| refused.attempts)?;
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

/// A program that could not be attached to a container's veth.
#[derive(Debug, Default)]
struct Refused {
    attempts: u32,
    is_reported: bool,
}

impl Refused {
    /// Takes note of one more attempt, and says whether that is to be reported: once, and at once where the kernel refuses the
    /// program itself, for then the next attempt is as vain.
    ///
    /// A container that is gone by now is nothing special, the next finding will not have it; and where one has left the bridge
    /// and is back, the kernel takes a moment to let go of the old program.
    fn is_to_be_reported(&mut self, error: &LoadError) -> bool {
        self.attempts += 1;
        let is_due = error.is_of_program() || self.attempts >= REPORTED;
        is_due && !mem::replace(&mut self.is_reported, true)
    }
}

fn report_unattached(program: ContainerProgram, interface: &str, error: &LoadError) {
    let consequence = match program {
        ContainerProgram::From => "it may send with any address",
        ContainerProgram::To => "no fast path is opened for it",
    };
    tracing::warn!(%error, interface, "container not attached; {consequence}");
    // All that the verifier has said.
    tracing::debug!(?error, interface, "container not attached");
}

#[cfg(test)]
mod tests {
    use std::io;

    use aya::programs::ProgramError;

    use super::*;

    const PROGRAM: &str = "from_container";

    /// On which of a hundred attempts that fail so it is reported.
    fn reported(error: impl Fn(u32) -> LoadError) -> Vec<u32> {
        let mut refused = Refused::default();
        (1..=100).filter(|&attempt| refused.is_to_be_reported(&error(attempt))).collect()
    }

    fn program_refused(_: u32) -> LoadError {
        LoadError::Program { program: PROGRAM, source: ProgramError::AlreadyLoaded }
    }

    fn place_refused(_: u32) -> LoadError {
        let source = ProgramError::IOError(io::ErrorKind::AlreadyExists.into());
        LoadError::Attach { program: PROGRAM, interface: "veth0".to_owned(), source }
    }

    #[test]
    fn a_program_that_the_kernel_refuses_is_reported_at_once_and_once() {
        assert_eq!(reported(program_refused), [1]);
    }

    #[test]
    fn a_veth_that_takes_no_program_is_reported_once_it_is_no_passing_thing() {
        assert_eq!(reported(place_refused), [REPORTED]);
    }

    #[test]
    fn a_program_that_is_refused_later_is_reported_then() {
        let error = |attempt| if attempt < 7 { place_refused(attempt) } else { program_refused(attempt) };
        assert_eq!(reported(error), [7]);
    }
}
