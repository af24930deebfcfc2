//! What can go wrong with programs and links.

use std::{io, path::PathBuf};

use aya::{
    EbpfError,
    pin::PinError,
    programs::{ProgramError, links::LinkError},
};

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
    #[error("load program {program}: {}", chain(.source))]
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

/// An error and its causes on one line; aya's own messages leave the causes out.
fn chain(error: &dyn std::error::Error) -> String {
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
