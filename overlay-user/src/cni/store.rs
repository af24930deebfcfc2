//! The delegates' configurations, from ADD to DEL.
//!
//! ```text
//! DATADIR/CONTAINER             of the container's eth0, as flannel's plugin has it
//! DATADIR/CONTAINER@INTERFACE   of any other interface, which flannel's plugin would mix up with the first
//! ```

use std::{
    collections::HashSet,
    ffi::OsString,
    fs::{self, DirBuilder},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use rscni_types::{error::Error, types::GcAttachment};
use serde_json::{Map, Value};

use super::{delegate::Delegate, request::Attachment};

/// The interface that runtimes give the first network of a container.
const FIRST_INTERFACE: &str = "eth0";

/// The directory of configurations.
#[derive(Debug)]
pub(super) struct Store<'a> {
    directory: &'a Path,
}

impl<'a> Store<'a> {
    pub(super) fn new(directory: &'a Path) -> Self {
        Self { directory }
    }

    /// Keeps the configuration of `attachment`, so that it survives a power cut.
    pub(super) fn save(&self, attachment: &Attachment, config: &Map<String, Value>) -> Result<(), Error> {
        let path = self.path(attachment);
        let write = || -> io::Result<()> {
            DirBuilder::new().recursive(true).mode(0o700).create(self.directory)?;
            // Mode 0600; the name starts with a dot, as no container's does.
            let mut file = tempfile::NamedTempFile::new_in(self.directory)?;
            serde_json::to_writer(&mut file, config)?;
            file.flush()?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            fs::File::open(self.directory)?.sync_all()
        };
        write().map_err(|error| Error::IOFailure(format!("write {}: {error}", path.display())))
    }

    /// The configuration of `attachment`, unless it has none. One that cannot be understood is as good as none: whoever
    /// deletes a container must get on.
    pub(super) fn load(&self, attachment: &Attachment) -> Result<Option<Delegate>, Error> {
        let path = self.path(attachment);
        match fs::read(&path) {
            Ok(json) => {
                let delegate = serde_json::from_slice(&json).ok().and_then(|config| Delegate::parse(config).ok());
                if delegate.is_none() {
                    tracing::warn!(path = %path.display(), "not a delegate's configuration, ignored");
                }
                Ok(delegate)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::IOFailure(format!("read {}: {error}", path.display()))),
        }
    }

    /// Forgets `attachment`, if it is known.
    pub(super) fn remove(&self, attachment: &Attachment) -> Result<(), Error> {
        remove(&self.path(attachment))
    }

    /// Forgets the attachments to `network` that are not in `valid`.
    pub(super) fn retain(&self, network: &str, valid: &[GcAttachment]) -> Result<(), Error> {
        let keep: HashSet<OsString> =
            valid.iter().map(|valid| file_name(&valid.container_id, &valid.ifname).into()).collect();
        let entries = match fs::read_dir(self.directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries.and_then(Iterator::collect::<io::Result<Vec<_>>>),
        };
        let entries =
            entries.map_err(|error| Error::IOFailure(format!("list {}: {error}", self.directory.display())))?;
        let is_stale = |path: &Path| {
            let config = fs::read(path).ok().and_then(|json| serde_json::from_slice::<Value>(&json).ok());
            config.is_some_and(|config| config["name"] == network)
        };
        for entry in entries.iter().filter(|entry| !keep.contains(&entry.file_name())) {
            if is_stale(&entry.path()) {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    fn path(&self, Attachment { container, interface }: &Attachment) -> PathBuf {
        self.directory.join(file_name(container, interface))
    }
}

/// No container has an `@` in its name.
fn file_name(container: &str, interface: &str) -> String {
    if interface == FIRST_INTERFACE { container.to_owned() } else { format!("{container}@{interface}") }
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Error::IOFailure(format!("remove {}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn attachment(container: &str, interface: &str) -> Attachment {
        let (container, interface) = (container.parse().unwrap(), interface.parse().unwrap());
        Attachment { container, interface }
    }

    fn config(network: &str) -> Map<String, Value> {
        let Value::Object(config) = json!({"name": network, "type": "bridge"}) else { panic!("no object") };
        config
    }

    fn names(directory: &Path) -> Vec<String> {
        let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn two_interfaces_of_a_container_are_kept_apart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("flannel");
        let store = Store::new(&path);
        let (first, second) = (attachment("c1", "eth0"), attachment("c1", "net1"));
        assert_eq!(store.load(&first), Ok(None));
        store.save(&first, &config("one")).unwrap();
        store.save(&second, &config("two")).unwrap();
        assert_eq!(names(&path), ["c1", "c1@net1"]);
        store.remove(&second).unwrap();
        store.remove(&second).unwrap();
        assert_eq!(store.load(&second), Ok(None));
        assert_eq!(store.load(&first).unwrap().unwrap().config, config("one"));
    }

    #[test]
    fn a_damaged_file_is_as_good_as_none() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        for text in ["", "[]", "{}", r#"{"type": 7}"#] {
            fs::write(directory.path().join("c1"), text).unwrap();
            assert_eq!(store.load(&attachment("c1", "eth0")), Ok(None), "{text}");
        }
    }

    #[test]
    fn only_stale_attachments_of_the_network_are_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        for (container, interface, network) in
            [("c1", "eth0", "one"), ("c1", "net1", "one"), ("c2", "eth0", "one"), ("c3", "eth0", "two")]
        {
            store.save(&attachment(container, interface), &config(network)).unwrap();
        }
        fs::write(directory.path().join("foreign"), "text").unwrap();
        let valid = GcAttachment { container_id: "c1".to_owned(), ifname: "eth0".to_owned() };
        store.retain("one", &[valid]).unwrap();
        assert_eq!(names(directory.path()), ["c1", "c3", "foreign"]);
        Store::new(&directory.path().join("missing")).retain("one", &[]).unwrap();
    }
}
