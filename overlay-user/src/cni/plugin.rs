//! Runs another plugin as the specification says: the same environment, its configuration on standard input.

use std::{
    io::{ErrorKind, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rscni_types::{
    error::Error,
    types::{CNI_COMMAND, CNI_PATH, Cmd},
};
use serde_json::{Map, Value};

use super::Failure;

/// Our code for a plugin that fails without an error result; the specification keeps those below 100.
const NO_RESULT: u32 = 101;

/// A plugin's program.
#[derive(Debug)]
pub(super) struct Plugin {
    name: String,
    program: PathBuf,
}

impl Plugin {
    /// Looks for the plugin `name` in the directories of `CNI_PATH`.
    ///
    /// # Errors
    /// When it is in none.
    pub(super) fn find(name: &str, path: &[PathBuf]) -> Result<Self, Error> {
        if path.is_empty() {
            return Err(Error::InvalidEnvValue(format!("not set: {CNI_PATH}, to find the plugin {name}")));
        }
        let found = path.iter().map(|directory| directory.join(name)).find(|program| is_program(program));
        let program = found.ok_or_else(|| {
            let path: Vec<_> = path.iter().map(|directory| directory.display().to_string()).collect();
            Error::InvalidNetworkConfig(format!("no plugin {name} in {}: install it there", path.join(", ")))
        })?;
        Ok(Self { name: name.to_owned(), program })
    }

    /// Runs the plugin and returns its result as it wrote it.
    ///
    /// # Errors
    /// The plugin's own error result, or what kept it from giving one.
    pub(super) fn run(&self, command: Cmd, config: &Map<String, Value>) -> Result<String, Failure> {
        let io = |error| Error::IOFailure(format!("run {}: {error}", self.program.display()));
        let json = serde_json::to_vec(config).map_err(|error| io(error.into()))?;
        let mut run = Command::new(&self.program);
        // What it writes to standard error goes where ours goes.
        run.env(CNI_COMMAND, <&str>::from(command)).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = run.spawn().map_err(io)?;
        let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(&json));
        let output = child.wait_with_output().map_err(io)?;
        match written {
            // It did not want to know. How it ended says more.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(io(error).into()),
            _ => {}
        }
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(said);
        }
        let is_result = serde_json::from_str::<Value>(&said).is_ok_and(|result| result["code"].is_u64());
        Err(if is_result {
            Failure::Delegate { plugin: self.name.clone(), result: said }
        } else {
            let details = format!("{} ended with {}: see its standard error", self.program.display(), output.status);
            Error::Custom(NO_RESULT, format!("plugin {} failed without saying why", self.name), details).into()
        })
    }
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}
