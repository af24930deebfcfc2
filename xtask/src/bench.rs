//! `cargo xtask bench`: the program `bench` of `overlay-tests`, built for release.

use crate::{
    hand_over::{Options, hand_over},
    setup,
};

/// Becomes `bench`.
///
/// # Errors
///
/// Setting up or building failed, or there is no `bench` to become.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    setup::run_without(&setup::DOCKER)?;
    println!("bench: building for release; that takes minutes the first time");
    hand_over("bench", &["--release"], options)
}
