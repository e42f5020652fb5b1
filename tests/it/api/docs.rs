//! `/docs`: a page that shows the document and needs nothing but this server.

use std::collections::BTreeSet;

use super::{ask, start};
use crate::{
    browser::Browser,
    child::{PATIENCE, happens},
    contract,
    harness::OPERATOR_KEY,
};

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
    for elsewhere in ["http", "//", "*", "unsafe"] {
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

/// An operation whose answer is easily had, and one with a body.
const OPENED: [&str; 2] = [
    "#operations-Entities-list_entities",
    "#operations-Integrations-create_integration",
];
/// Presses the button with these words; whether it is there.
const PRESS: &str = "
    const buttons = [...document.querySelectorAll('BLOCK button')];
    const button = buttons.find(button => button.textContent.trim() === 'WORDS');
    button?.click();
    return button !== undefined";

async fn press(browser: &Browser, block: &str, words: &str) {
    let script = PRESS.replace("BLOCK", block).replace("WORDS", words);
    let pressed = happens(PATIENCE, async || browser.script(&script).await == true).await;
    assert!(pressed, "no {words} in {block}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_shows_every_operation_and_tries_one_out() {
    let app = start().await;
    let browser = Browser::start().await;
    browser.open(&format!("{}/docs", app.url)).await;
    let count = "return document.querySelectorAll('.opblock').length";
    let operations = contract::operations().len();
    let shown = happens(PATIENCE, async || browser.script(count).await == operations).await;
    assert!(shown, "{}", browser.text().await);
    for block in OPENED {
        let summary = format!("{block} .opblock-summary-control");
        browser.click(&browser.find(&summary).await).await;
        press(&browser, block, "Try it out").await;
    }

    press(&browser, ".auth-wrapper", "Authorize").await;
    // React takes no value that is only set.
    let field = browser.find(".modal-ux input").await;
    browser.fill(&field, OPERATOR_KEY).await;
    press(&browser, ".modal-ux form", "Authorize").await;
    press(&browser, ".modal-ux", "Close").await;
    let block = OPENED[0];
    press(&browser, block, "Execute").await;
    let answer =
        format!("return document.querySelector('{block} .live-responses-table')?.textContent");
    let answered = happens(PATIENCE, async || {
        let text = browser.script(&answer).await;
        text.as_str()
            .is_some_and(|text| text.contains("next_cursor"))
    })
    .await;
    assert!(answered, "{}", browser.text().await);

    let console = browser.console().await;
    assert!(console.is_empty(), "{console:#?}");
    for url in browser.requested().await {
        assert_eq!(url.origin().ascii_serialization(), app.url, "{url}");
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
