//! What an agent refuses: with one line that says why, exit code 1, and the node as it was.
