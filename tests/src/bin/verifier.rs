//! Prints what the kernel's verifier says of every program: the table in `bpf-maps.md`. Needs root.

use anyhow::Result;
use overlay_tests::verifier::{TABLE_HEAD, measure};

fn main() -> Result<()> {
    let rows = measure()?;
    println!("{TABLE_HEAD}");
    rows.iter().for_each(|row| println!("{row}"));
    Ok(())
}
