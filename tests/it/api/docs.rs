//! `/docs`: a page that shows the document and needs nothing but this server.

use std::collections::BTreeSet;

use super::{ask, start};

/// What stands in quotes after `name=`.
fn attributes<'a>(page: &'a str, name: &str) -> BTreeSet<&'a str> {
    let before = format!("{name}=\"");
    let parts = page.split(&before).skip(1);
    parts.map(|part| part.split('"').next().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_loads_from_this_server_alone() {
    let app = start().await;
    let page = ask(&app, "GET", "/docs", &[], b"").await;
    assert_eq!(page.status, 200);
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"));
    for elsewhere in ["http", "//", "*", "unsafe-eval", "script-src 'self' "] {
        assert!(!policy.contains(elsewhere), "{elsewhere}: {policy}");
    }
    assert!(!page.text.contains("//"), "{}", page.text);
    assert!(!page.text.contains("<style"), "{}", page.text);
    let scripts = page.text.matches("<script").count();
    assert_eq!(scripts, attributes(&page.text, "src").len());
    let mut files = attributes(&page.text, "src");
    files.append(&mut attributes(&page.text, "href"));
    assert_eq!(files.len(), 5, "{files:?}");
    for file in files {
        let url = format!("{}{file}", app.url);
        let answer = reqwest::get(url).await.unwrap();
        assert_eq!(answer.status(), 200, "{file}");
        let kind = answer.headers()["content-type"].to_str().unwrap();
        let expected = match file.rsplit('.').next().unwrap() {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "png" => "image/png",
            _ => "application/json",
        };
        assert_eq!(kind, expected, "{file}");
        assert!(!answer.bytes().await.unwrap().is_empty(), "{file}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_serves_no_other_file() {
    let app = start().await;
    for name in [
        "index.html",
        "swagger-initializer.js",
        "oauth2-redirect.html",
        "%ff",
        "%2e%2e",
        "..%2f..%2fetc%2fpasswd",
    ] {
        let answer = ask(&app, "GET", &format!("/docs/{name}"), &[], b"").await;
        answer.assert_problem(404, "not_found");
    }
}
