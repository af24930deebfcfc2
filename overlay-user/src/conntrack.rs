//! What connection tracking of this network namespace must put up with for the fast path.

use crate::sysctl::{Sysctl, SysctlError};

/// Makes conntrack accept TCP packets outside the window that it knows, and says whether it had to be told.
///
/// Of a flow on the fast path conntrack sees one packet now and then: the windows move on without it. Strictly, it would
/// call the next packet that it sees invalid, and the usual rule that drops such packets would take the flow's approval
/// and then the flow itself. Where conntrack is not loaded there is nothing to tell.
///
/// # Errors
/// [`SysctlError`].
pub fn tolerate_gaps() -> Result<bool, SysctlError> {
    let liberal = Sysctl::netfilter("nf_conntrack_tcp_be_liberal");
    Ok(liberal.exists() && liberal.set("1")?)
}
