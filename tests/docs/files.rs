//! Files that documents name are there.

use std::{collections::BTreeSet, fs, path::Path};

use regex::Regex;

const DOCUMENTS: [&str; 4] = ["README.md", "bpf-maps.md", "docs/architecture.md", "docs/operators-guide.md"];

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The sources below a directory, relative to the workspace.
fn sources(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        match path.extension() {
            _ if path.is_dir() => sources(&path, found),
            Some(extension) if extension == "rs" => {
                found.insert(path.strip_prefix(root()).unwrap().display().to_string());
            }
            _ => {}
        }
    }
}

#[test]
fn sources_that_documents_name_exist() {
    let mut all = BTreeSet::new();
    for package in ["overlay-common/src", "overlay-ebpf/src", "overlay-user/src", "tests"] {
        sources(&root().join(package), &mut all);
    }
    let named = Regex::new(r"`([a-z][a-z0-9_/-]*\.rs)`").unwrap();
    for document in DOCUMENTS {
        let text = fs::read_to_string(root().join(document)).unwrap();
        for (_, [file]) in named.captures_iter(&text).map(|found| found.extract()) {
            let exists = all.iter().any(|path| path == file || path.ends_with(&format!("/{file}")));
            assert!(exists, "{document} names {file}");
        }
    }
}

#[test]
fn links_between_documents_lead_to_files() {
    let link = Regex::new(r"\]\(([^)#:]+)(?:#[^)]*)?\)").unwrap();
    for document in DOCUMENTS.map(|document| root().join(document)) {
        let text = fs::read_to_string(&document).unwrap();
        for (_, [target]) in link.captures_iter(&text).map(|found| found.extract()) {
            assert!(document.with_file_name(target).exists(), "{} links to {target}", document.display());
        }
    }
}
