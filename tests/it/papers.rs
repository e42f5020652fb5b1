//! The papers say what is so.

use nucleus::{cli::doctor::PARTS, config::KEYS};

const README: &str = include_str!("../../README.md");

#[test]
fn the_readme_lists_every_setting_and_no_other() {
    let rows: Vec<&str> = README
        .lines()
        .filter(|line| line.starts_with("| `NUCLEUS_"))
        .collect();
    let expected: Vec<String> = KEYS.iter().map(|key| key.readme_row()).collect();
    assert_eq!(rows, expected);
}

#[test]
fn the_readme_s_table_of_parts_is_that_of_the_doctor() {
    let table = README.split("## When something is wrong").nth(1).unwrap();
    let table = table.split("\n## ").next().unwrap();
    let rows: Vec<&str> = table
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    let expected: Vec<String> = PARTS
        .iter()
        .map(|(name, question)| format!("| `{name}` | {question} |"))
        .collect();
    assert_eq!(rows, expected);
}

#[test]
fn the_readme_says_why_each_dependency_is_there() {
    let manifests = [
        include_str!("../../Cargo.toml"),
        include_str!("../../email/Cargo.toml"),
        include_str!("../../migration/Cargo.toml"),
    ];
    for manifest in manifests {
        let manifest: toml::Table = manifest.parse().unwrap();
        for (name, source) in manifest["dependencies"].as_table().unwrap() {
            if source.get("path").is_none() {
                assert!(
                    README.contains(&format!("`{name}`")),
                    "{name} is not in the table"
                );
            }
        }
    }
}
