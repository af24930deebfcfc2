//! What is attached, by whichever agent.

use std::collections::BTreeMap;

use nix::net::if_::if_indextoname;

use super::{LoadError, TC_PROGRAMS, XDP_PROGRAM, attach::pins};
use crate::rundir::RunDir;

/// How many interfaces that exist each program is attached to, by the pins that tell of it.
///
/// # Errors
/// When the directory of pins cannot be read.
pub fn attached(run_dir: &RunDir) -> Result<BTreeMap<&'static str, u64>, LoadError> {
    let mut counts: BTreeMap<_, _> = TC_PROGRAMS.into_iter().chain([XDP_PROGRAM]).map(|program| (program, 0)).collect();
    for pin in pins(&run_dir.links())? {
        let Some((program, index)) = pin.rsplit_once('-') else { continue };
        let exists = index.parse().is_ok_and(|index: u32| if_indextoname(index).is_ok());
        if let Some(count) = counts.get_mut(program).filter(|_| exists) {
            *count += 1;
        }
    }
    Ok(counts)
}
