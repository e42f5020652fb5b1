//! The messages of a folder: every regular file below it whose name ends in `.eml`, in sorted order.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Folders within folders are looked at so deep.
const MAX_DEPTH: usize = 64;

/// The paths of the messages. Links are not followed, so that no folder is looked at twice.
pub fn find(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![(folder.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            let path = entry.path();
            if kind.is_dir() && depth < MAX_DEPTH {
                folders.push((path, depth + 1));
            } else if kind.is_file() && is_message(&path) {
                found.push(path);
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn is_message(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("eml"))
}

/// Reads a message, up to `max_bytes` of it, and says whether it is longer.
pub fn read(path: &Path, max_bytes: usize) -> io::Result<(Vec<u8>, bool)> {
    let mut raw = Vec::new();
    fs::File::open(path)?
        .take(max_bytes as u64 + 1)
        .read_to_end(&mut raw)?;
    let cut = raw.len() > max_bytes;
    raw.truncate(max_bytes);
    Ok((raw, cut))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_at_any_depth_in_their_order_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("b/c.eml")).unwrap();
        for name in [
            "z.eml",
            "a.EML",
            "b/y.eml",
            "b/c.eml/x.eml",
            "note.txt",
            "eml",
        ] {
            fs::write(root.join(name), "Subject: x\n\n").unwrap();
        }
        std::os::unix::fs::symlink(root, root.join("b/loop")).unwrap();
        std::os::unix::fs::symlink(root.join("z.eml"), root.join("link.eml")).unwrap();
        let found = find(root).unwrap();
        let names: Vec<_> = found
            .iter()
            .map(|path| path.strip_prefix(root).unwrap().to_str().unwrap())
            .collect();
        assert_eq!(names, ["a.EML", "b/c.eml/x.eml", "b/y.eml", "z.eml"]);
        assert!(find(&root.join("nowhere")).is_err());
    }

    #[test]
    fn a_long_message_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.eml");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), (b"12345".to_vec(), false));
        assert_eq!(read(&path, 4).unwrap(), (b"1234".to_vec(), true));
    }
}
