//! What can go wrong with programs and links.

use std::{error, io, iter, path::PathBuf};

use aya::{
    EbpfError,
    pin::PinError,
    programs::{ProgramError, links::LinkError},
};
use nix::errno::Errno;

/// What can go wrong with programs.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The object with the programs was refused.
    #[error("load the eBPF object: {}", chain(.0))]
    Object(#[from] EbpfError),
    /// The object lacks a program.
    #[error("the eBPF object has no program {program}; the build is broken")]
    Missing {
        /// The program.
        program: &'static str,
    },
    /// One program was refused.
    #[error("load program {program}: {}", refusal(.source))]
    Program {
        /// The program.
        program: &'static str,
        /// Why.
        source: ProgramError,
    },
    /// A program could not be attached.
    #[error("attach {program} to {interface}: {}", chain(.source))]
    Attach {
        /// The program.
        program: &'static str,
        /// The interface.
        interface: String,
        /// Why.
        source: ProgramError,
    },
    /// What is attached could not be found out.
    #[error("find out what is attached: {0}")]
    Query(String),
    /// Nothing is attached.
    #[error("no program is attached by {path}; start the agent: it attaches them, and leaves them when it stops")]
    Nothing {
        /// The directory of pinned links.
        path: PathBuf,
    },
    /// What is attached is not what this program has inside.
    #[error("{program} that is attached is of another build; trace with the `overlay` that the agent was started from")]
    OtherBuild {
        /// The program.
        program: &'static str,
    },
    /// Programs are attached by filters.
    #[error(
        "programs are attached by filters, as on kernels without tcx (before Linux 6.6), and cannot be exchanged and put back \
         in one step; trace a captured packet with --pcap"
    )]
    Filters,
    /// An agent has attached programs while they were traced.
    #[error("an agent has attached its programs anew, which end this trace; trace again")]
    Replaced,
    /// A program could not be run on a packet.
    #[error("run {program} on a packet of {length} bytes: {}; kernels take up to about 3500 bytes for that", chain(.source))]
    Run {
        /// The program.
        program: &'static str,
        /// Length in bytes of the packet.
        length: usize,
        /// Why.
        source: ProgramError,
    },
    /// A link could not be used.
    #[error("link of {program} on {interface}: {}", chain(.source))]
    Link {
        /// The program.
        program: &'static str,
        /// The interface.
        interface: String,
        /// Why.
        source: LinkError,
    },
    /// A link could not be pinned.
    #[error("pin {path}: {}", chain(.source))]
    Pin {
        /// Where.
        path: PathBuf,
        /// Why.
        source: PinError,
    },
    /// The queueing discipline or the filters of an interface could not be had.
    #[error("{action}: {source}")]
    Clsact {
        /// What was tried, on what.
        action: String,
        /// Why.
        source: io::Error,
    },
    /// The log of the programs could not be read.
    #[error("read the programs' log: {0}")]
    Log(io::Error),
    /// The directory of pins could not be read or written.
    #[error("pins in {path}: {source}")]
    Pins {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl LoadError {
    /// Whether it is about the program itself, which is refused wherever it is to be attached.
    #[must_use]
    pub const fn is_of_program(&self) -> bool {
        matches!(self, Self::Object(_) | Self::Missing { .. } | Self::Program { .. })
    }

    /// Whether a program of others is in the place that only one can have.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        let causes = iter::successors(error::Error::source(self), |error| error.source());
        let errnos = causes.filter_map(|error| error.downcast_ref::<io::Error>()).filter_map(io::Error::raw_os_error);
        // EEXIST: theirs runs in the kernel's generic mode, which excludes the driver's.
        errnos.map(Errno::from_raw).any(|errno| matches!(errno, Errno::EBUSY | Errno::EEXIST))
    }
}

/// Why the kernel has not taken a program, on one line: of the verifier's words those that say what it objects to.
fn refusal(error: &ProgramError) -> String {
    let ProgramError::LoadError { io_error, verifier_log } = error else { return chain(error) };
    match objection(&verifier_log.to_string()) {
        Some(objection) => format!("{io_error}; the verifier says: {objection}"),
        None => io_error.to_string(),
    }
}

/// The last line of the verifier's log before its sums; none where it has said nothing, as when memory was short.
fn objection(log: &str) -> Option<&str> {
    const SUMS: [&str; 3] = ["processed ", "verification time ", "stack depth "];
    log.lines().map(str::trim).rfind(|line| !line.is_empty() && !SUMS.iter().any(|sum| line.starts_with(sum)))
}

/// An error and its causes on one line; aya's own messages leave the causes out.
fn chain(error: &dyn error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {}", next.lines().next().unwrap_or_default());
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use aya_obj::VerifierLog;

    use super::*;

    /// What is said of a program that the kernel has refused with such a log.
    fn refused(log: &str) -> String {
        let (io_error, verifier_log) = (Errno::EACCES.into(), VerifierLog::new(log.to_owned()));
        let source = ProgramError::LoadError { io_error, verifier_log };
        LoadError::Program { program: "from_container", source }.to_string()
    }

    #[test]
    fn a_refused_program_is_named_in_one_line_with_what_the_verifier_objects_to() {
        let log = "func#0 @0\n0: R1=ctx() R10=fp0\n0: (79) r2 = *(u64 *)(r1 +0)\nR3 invalid mem access 'scalar'\n\
                   verification time 54 usec\nstack depth 24\nprocessed 2 insns (limit 1000000) max_states_per_insn 0\n\n";
        let said = "load program from_container: Permission denied (os error 13)";
        assert_eq!(refused(log), format!("{said}; the verifier says: R3 invalid mem access 'scalar'"));
        for silent in ["", "processed 0 insns\n"] {
            assert_eq!(refused(silent), said);
        }
    }

    #[test]
    fn a_program_that_is_refused_is_told_from_a_place_that_is() {
        let program = "from_container";
        let refused = LoadError::Program { program, source: ProgramError::AlreadyLoaded };
        let gone = ProgramError::UnknownInterface { name: "veth0".to_owned() };
        let not_attached = LoadError::Attach { program, interface: "veth0".to_owned(), source: gone };
        assert!(refused.is_of_program() && !not_attached.is_of_program());
    }
}
