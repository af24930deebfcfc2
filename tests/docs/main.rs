//! The documents say what is so: commands do what is shown, files are where they are said to be.

#![cfg(test)]
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place and the error")]

mod console;
mod document;
mod files;
