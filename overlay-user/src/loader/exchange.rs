//! [`Exchange`]: another program in a pinned link, and the way back, each in one step and only if nobody else was there.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use nix::errno::Errno;

use super::{
    LoadError,
    syscall::{open_pin, open_program, update},
};

/// A program that is to take the place of another in a link.
#[derive(Debug)]
pub struct Exchange {
    pin: PathBuf,
    original: Held,
    replacement: Held,
}

/// A program that stays in the kernel as long as this is held.
#[derive(Debug)]
struct Held {
    id: u32,
    descriptor: OwnedFd,
}

impl Exchange {
    /// Holds both programs, named by the kernel's numbers; changes nothing yet.
    ///
    /// # Errors
    /// When one of them is gone.
    pub fn hold(pin: PathBuf, original: u32, replacement: u32) -> Result<Self, LoadError> {
        Ok(Self { pin, original: Held::new(original)?, replacement: Held::new(replacement)? })
    }

    /// The pin of the link.
    #[must_use]
    pub fn pin(&self) -> &Path {
        &self.pin
    }

    /// The kernel's numbers of the program that was there and of the one that takes its place.
    #[must_use]
    pub fn ids(&self) -> (u32, u32) {
        (self.original.id, self.replacement.id)
    }

    /// Puts the replacement into the link. `false`: the original is not there any more, and nothing has changed.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn replace(&self) -> Result<bool, LoadError> {
        self.update(&self.original, &self.replacement)
    }

    /// Puts the original back. `false`: somebody has put something else there meanwhile, which stays, or the link is gone.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn restore(&self) -> Result<bool, LoadError> {
        self.update(&self.replacement, &self.original)
    }

    fn update(&self, old: &Held, new: &Held) -> Result<bool, LoadError> {
        let updated =
            open_pin(&self.pin).and_then(|link| update(link.as_fd(), old.descriptor.as_fd(), new.descriptor.as_fd()));
        match updated.map_err(|error| error.raw_os_error().map(Errno::from_raw).ok_or(error)) {
            Ok(()) => Ok(true),
            // Another program is there; the pin is gone; the interface is gone, and the link does nothing any more.
            Err(Ok(Errno::EPERM | Errno::ENOENT | Errno::ENOLINK)) => Ok(false),
            Err(Ok(errno)) => Err(LoadError::Pins { path: self.pin.clone(), source: errno.into() }),
            Err(Err(source)) => Err(LoadError::Pins { path: self.pin.clone(), source }),
        }
    }
}

impl Held {
    fn new(id: u32) -> Result<Self, LoadError> {
        let gone = |_| LoadError::Query(format!("program {id} is gone; try again"));
        Ok(Self { id, descriptor: open_program(id).map_err(gone)? })
    }
}
