//! The papers say what is so.

use nucleus::config::KEYS;

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
fn the_readme_says_why_each_dependency_is_there() {
    let manifest: toml::Table = include_str!("../../Cargo.toml").parse().unwrap();
    for name in manifest["dependencies"].as_table().unwrap().keys() {
        if name != "migration" {
            assert!(
                README.contains(&format!("`{name}`")),
                "{name} is not in the table"
            );
        }
    }
}
