//! GitHub's workflows: actionlint reads them, with what it knows of the actions they use.

use std::{fs, path::Path};

use super::{ROOT, tool};

const FOLDER: &str = ".github/workflows";

#[test]
fn actionlint_finds_nothing_in_the_workflows() {
    let files = fs::read_dir(Path::new(ROOT).join(FOLDER)).unwrap();
    let mut names = Vec::new();
    for file in files {
        let name = file.unwrap().file_name().into_string().unwrap();
        names.push(format!("{FOLDER}/{name}"));
    }
    assert!(!names.is_empty());
    let mut arguments = vec!["-no-color"];
    arguments.extend(names.iter().map(String::as_str));
    tool("actionlint", &arguments);
}
