//! [`Terminal`]: 80 columns and 24 lines on a node, with a shell on them.

use std::{path::PathBuf, process::Command};

use overlay_tests::{cluster::agent_program, node::Node, process, sandbox::scratch};

/// A terminal of tmux's, which is gone with this.
pub(crate) struct Terminal<'a> {
    node: &'a Node,
    socket: PathBuf,
}

impl<'a> Terminal<'a> {
    /// Opens one on `node`, where `overlay` is in the shell's path and finds the node's data path.
    pub(crate) fn open(node: &'a Node) -> Self {
        let terminal = Self { node, socket: scratch().join(format!("tmux-{}", node.name())) };
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "env -u NO_COLOR sh"]);
        terminal
    }

    /// Types a line and ends it.
    pub(crate) fn enter(&self, line: &str) {
        self.tmux(&["send-keys", "-l", line]);
        self.key("Enter");
    }

    /// Presses a key.
    pub(crate) fn key(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    /// Makes it another size.
    pub(crate) fn resize(&self, columns: u16, lines: u16) {
        self.tmux(&["resize-window", "-x", &columns.to_string(), "-y", &lines.to_string()]);
    }

    /// What is on the screen, without colours.
    pub(crate) fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// What is on the screen, with the escape sequences that colour it.
    pub(crate) fn coloured(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e"])
    }

    fn tmux(&self, words: &[&str]) -> String {
        process::output(&mut self.command(words)).expect("tmux, of Debian's package of that name")
    }

    fn command(&self, words: &[&str]) -> Command {
        let program = agent_program().unwrap();
        let mut command = self.node.netns().command("tmux");
        let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
        command.env("PATH", path).env("OVERLAY_RUN_DIR", self.node.run_dir()).env("LC_ALL", "C.UTF-8");
        command.env("PS1", "$ ").arg("-u").arg("-S").arg(&self.socket).args(words);
        command
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        // Where it fails there is none left.
        let ended = self.command(&["kill-server"]).output();
        drop(ended);
    }
}
