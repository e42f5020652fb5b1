//! The mails below a folder, one file each: those of an mbox are taken apart into files first, so that all who read
//! them read the same bytes.

#![expect(
    clippy::unwrap_used,
    reason = "whoever measures or compares cannot go on without its mails"
)]

use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use mail_parser::mailbox::mbox::MessageIterator;

/// Every mail below `folder`, by name. Files of `mailbox` folders that are mboxes are taken apart below `scratch`.
pub(crate) fn below(folder: &Path, scratch: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(current) = folders.pop() {
        let mut paths: Vec<PathBuf> = fs::read_dir(&current)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        paths.sort();
        for path in paths {
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                // Payloads for the sanitiser are no mails.
                if name != "xss" {
                    folders.push(path);
                }
            } else if name.ends_with(".mbox") && current.ends_with("mailbox") {
                found.extend(taken_apart(&path, scratch));
            } else if !name.ends_with(".json") && name != "README.md" && !name.starts_with('.') {
                found.push(path);
            }
        }
    }
    found
}

/// The messages of an mbox as files.
fn taken_apart(mbox: &Path, scratch: &Path) -> Vec<PathBuf> {
    let folder = scratch.join("mailbox").join(mbox.file_stem().unwrap());
    fs::create_dir_all(&folder).unwrap();
    let reader = BufReader::new(fs::File::open(mbox).unwrap());
    let mut files = Vec::new();
    for (number, message) in MessageIterator::new(reader).enumerate() {
        let file = folder.join(format!("{number:05}"));
        fs::write(&file, message.unwrap().contents()).unwrap();
        files.push(file);
    }
    files
}
