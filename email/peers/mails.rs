//! The mails below a folder, one file each: those of an mbox are taken apart into files first, so that all who read
//! them read the same bytes.

#![expect(
    clippy::unwrap_used,
    reason = "whoever measures or compares cannot go on without its mails"
)]

use std::fs;
use std::path::{Path, PathBuf};

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

/// The messages of an mbox as files. Quoted separators stay as they are.
fn taken_apart(mbox: &Path, scratch: &Path) -> Vec<PathBuf> {
    let bytes = fs::read(mbox).unwrap();
    let folder = scratch.join("mailbox").join(mbox.file_stem().unwrap());
    fs::create_dir_all(&folder).unwrap();
    let mut starts = Vec::new();
    let mut position = 0;
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        let blank_before = position == 0
            || bytes[..position].ends_with(b"\n\n")
            || bytes[..position].ends_with(b"\n\r\n");
        if line.starts_with(b"From ") && blank_before {
            starts.push((position, position + line.len()));
        }
        position += line.len();
    }
    let mut files = Vec::new();
    for (number, (_, begin)) in starts.iter().enumerate() {
        let end = starts.get(number + 1).map_or(bytes.len(), |next| next.0);
        let file = folder.join(format!("{number:05}"));
        fs::write(&file, &bytes[*begin..end]).unwrap();
        files.push(file);
    }
    files
}
