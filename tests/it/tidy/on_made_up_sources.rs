//! The checks, on sources that are made to fail them.

use super::*;

#[test]
fn an_import_against_the_table_is_found_however_it_is_written() {
    let sources = [
        "use crate::db::Db;",
        "use crate::{\n    domain::Clock,\n    db::{self, outbox},\n};",
        "fn f() { let x = crate::db::connect(); }",
        "pub use crate::db as store;",
        "use crate::domain::Clock; type X<'a> = &'a crate::db::Db;",
        "use super::super::db;",
    ];
    for source in sources {
        let found = forbidden_imports("connectors/gmail.rs", source);
        assert!(!found.is_empty(), "{source}");
        assert!(
            found[0].contains("connectors must not import db"),
            "{found:?}"
        );
    }
    assert_eq!(
        forbidden_imports("domain/mod.rs", "use super::db;").len(),
        1
    );
    assert_eq!(forbidden_imports("rooms/mod.rs", "").len(), 1);
}

#[test]
fn an_import_is_allowed_as_far_as_the_table_says() {
    let named = "use crate::metrics::Total;";
    assert_none(&forbidden_imports("db/mod.rs", named));
    for source in [
        "use crate::metrics::{Total, Metrics};",
        "use crate::metrics::*;",
        "use crate::metrics;",
        "use crate::metrics::Totals;",
    ] {
        assert_eq!(forbidden_imports("db/mod.rs", source).len(), 1, "{source}");
    }
    assert_none(&forbidden_imports("cli/up.rs", "use crate::{api, worker};"));
    assert_eq!(
        forbidden_imports("cli/key.rs", "use crate::{api, worker};").len(),
        2
    );
}

#[test]
fn comments_strings_tests_and_the_own_room_do_not_count() {
    let source = "//! See [`crate::db`].\nuse crate::secrets::cipher;\nuse super::reply;\n\
                  const A: &str = \"crate::db::x \\\" crate::api\"; // crate::db::y\n\
                  const B: &str = r#\"use crate::db; \"# ; const C: char = '\"';\n\
                  /* crate::queue::z */ pub(crate) fn f<'a>() {}\n\
                  #[cfg(test)]\nmod tests {\n    use crate::db::Db;\n}\n";
    assert_none(&forbidden_imports("secrets/vault.rs", source));
    let after = "const C: char = '\"'; const D: char = '\\''; use crate::db::Db;";
    assert_eq!(forbidden_imports("secrets/vault.rs", after).len(), 1);
}

#[test]
fn a_crate_outside_its_place_is_found() {
    for (path, source) in [
        ("api/mod.rs", "use sea_orm::Set;"),
        ("sync/runner.rs", "fn f() { ::reqwest::get(url) }"),
        ("domain/mod.rs", "use reqwest;"),
        ("app.rs", "use std::{env, fs};"),
        ("app.rs", "let x = std::env::var(NAME);"),
        ("connectors/quota.rs", "use google_gmail1::api::Message;"),
        ("worker/mod.rs", "use {axum::Router};"),
    ] {
        assert_eq!(forbidden_crates(path, source).len(), 1, "{path}: {source}");
    }
    for (path, source) in [
        ("db/outbox.rs", "use sea_orm::Set;"),
        (
            "app.rs",
            "use std::{fs, path::Path}; let env = 1; crate::axum::x();",
        ),
        ("app.rs", "use tower_axum::x; let reqwest = 1;"),
        ("cli/demo/client.rs", "use reqwest::Client;"),
    ] {
        assert_none(&forbidden_crates(path, source));
    }
}

#[test]
fn an_untidy_file_is_found() {
    assert_none(&untidiness("a.rs", "//! Fine, TODOS and all.\n"));
    assert_eq!(untidiness("a.rs", "fn f() {}\n").len(), 1);
    assert_eq!(
        untidiness("a.rs", &"//! x\n".repeat(MAX_LINES + 1)).len(),
        1
    );
    for word in UNFINISHED {
        let source = format!("//! x\n// {word}: later\n");
        assert_eq!(untidiness("a.rs", &source), [format!("a.rs:2: {word}")]);
    }
}

#[test]
fn a_file_that_the_map_leaves_out_is_found() {
    let document = "`db/` holds `outbox.rs` and my_gap.rs.";
    assert!(names(document, &name_in_document("db/outbox.rs")));
    assert!(names(document, &name_in_document("db/mod.rs")));
    assert!(!names(document, &name_in_document("db/gap.rs")));
    assert!(!names(document, &name_in_document("api/mod.rs")));
}
