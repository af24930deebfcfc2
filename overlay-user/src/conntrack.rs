//! What connection tracking of this network namespace must put up with for the fast path.

use crate::rundir::{RunDir, RunDirError};
use crate::sysctl::{Sysctl, SysctlError};

/// The value that accepts TCP packets outside the window that conntrack knows.
const LIBERAL: &str = "1";

/// Conntrack could not be told.
#[derive(Debug, thiserror::Error)]
pub enum ConntrackError {
    /// The kernel refuses.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// The value that was there cannot be noted.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
}

fn be_liberal() -> Sysctl {
    Sysctl::netfilter("nf_conntrack_tcp_be_liberal")
}

/// Makes conntrack accept TCP packets outside the window that it knows, notes in `run_dir` what it did before, and says
/// whether it had to be told.
///
/// Of a flow on the fast path conntrack sees one packet now and then: the windows move on without it. Strictly, it would
/// call the next packet that it sees invalid, and the usual rule that drops such packets would take the flow's approval
/// and then the flow itself. Where conntrack is not loaded there is nothing to tell.
///
/// # Errors
/// [`ConntrackError`]; conntrack then is as it was.
pub fn tolerate_gaps(run_dir: &RunDir) -> Result<bool, ConntrackError> {
    let be_liberal = be_liberal();
    if !be_liberal.exists() {
        return Ok(false);
    }
    let before = be_liberal.get()?;
    if before == LIBERAL {
        return Ok(false);
    }
    run_dir.record_conntrack(&before)?;
    Ok(be_liberal.set(LIBERAL)?)
}

/// Sets conntrack back to `before`, unless somebody has changed it meanwhile.
///
/// # Errors
/// [`SysctlError`].
pub fn put_back(before: &str) -> Result<(), SysctlError> {
    let be_liberal = be_liberal();
    if be_liberal.exists() && be_liberal.get()? == LIBERAL {
        be_liberal.set(before)?;
    }
    Ok(())
}
