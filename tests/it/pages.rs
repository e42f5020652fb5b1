//! The pages at the end of an OAuth flow in a real browser: what a person reads, hears and operates,
//! in both schemes of colours and at a phone's width, and what a page cannot be made to do.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{Router, response::Html};
use nucleus::demo::{Consent, generate};
use serde_json::{Value, json};

use crate::{
    browser::{Browser, ENTER, Scheme, TAB},
    child::{PATIENCE, happens},
    doubles::serve,
    harness::{Setting, TestApp},
};

/// A name as nobody should have one: markup, a change of direction, and a word wider than a phone.
const NAME: &str = "Ada <b>Lovelace</b> \u{202e}and her extraordinarilylongandunbrokenfamilynamethatnoscreenofaphonecanhold";
const OTHER: &str = "another.account.with.quite.a.long.name@mail.example.com";
/// The question as a screen reader gets it.
const QUESTION: &str = r#"RootWebArea "Connect this account? – nucleus"
  main
    heading "Connect this account?" level=1
    DescriptionList
      term "Account"
      definition
        StaticText "alex@example.com"
      term "Service"
      definition
        StaticText "Gmail"
      term "For"
      definition
        StaticText "{name}"
    paragraph
      StaticText "nucleus will read this account and keep what it finds for"
      strong
        StaticText "{name}"
      StaticText ". If you did not start this yourself, choose Cancel."
    form
      button "Connect"
      button "Cancel"
"#;
/// Narrow as WCAG 2.2 asks for (1.4.10), and wide.
const WIDTHS: [u32; 2] = [320, 1280];
/// Lowest contrast of a text (WCAG 2.2, 1.4.3).
const CONTRAST: f64 = 4.5;

async fn start() -> TestApp {
    Setting::new(generate::mailbox(20, 7))
        .options(|options| options.other_accounts = vec![OTHER.to_owned()])
        .variable("NUCLEUS_HTTP__RETURN_TO", "https://app.example")
        .start()
        .await
}

async fn entity(app: &TestApp) -> String {
    let entity = app.post("/entities", json!({"name": NAME})).await;
    entity["id"].as_str().unwrap().to_owned()
}

/// Where the browser is sent after the person consented.
async fn answer(app: &TestApp, start: Value, consent: &Consent) -> String {
    let begun = app.post("/integrations/gmail/oauth/start", start).await;
    let url = begun["authorization_url"].as_str().unwrap();
    app.google.authorize(url, consent).await.unwrap().into()
}

/// Looks at the page that is open: in both schemes, narrow and wide, everything can be read without
/// scrolling sideways, and it asked no other site for anything.
async fn look(browser: &Browser, app: &TestApp, name: &str) {
    for scheme in [Scheme::Light, Scheme::Dark] {
        browser.prefer(scheme).await;
        for width in WIDTHS {
            browser.resize(width, 640).await;
            let at = format!("{name}-{}-{width}", scheme.name());
            let low = browser.low_contrast(CONTRAST).await;
            assert!(low.is_empty(), "{at}: {low:#?}");
            assert_eq!(browser.overflow().await, 0, "{at}");
            browser.screenshot(&at).await;
        }
    }
    let requested = browser.requested().await;
    assert!(!requested.is_empty(), "{name}");
    for url in requested {
        assert_eq!(url.origin().ascii_serialization(), app.url, "{url}");
    }
}

/// What a screen reader gets of a page that says how it ended.
fn told(title: &str, text: &str) -> String {
    format!(
        "RootWebArea \"{title} – nucleus\"\n  main\n    heading \"{title}\" level=1\n    paragraph\n      StaticText \"{text}\"\n"
    )
}

/// The name without what would turn the direction of writing.
fn visible_name() -> String {
    NAME.replace('\u{202e}', "\u{fffd}")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_confirms_reads_what_of_whom_and_is_told_how_it_ended() {
    let app = start().await;
    let begin = json!({"entity_id": entity(&app).await});
    let browser = Browser::start().await;
    let url = answer(&app, begin.clone(), &Consent::default()).await;
    browser.open(&url).await;
    look(&browser, &app, "confirm").await;
    let question = QUESTION.replace("{name}", &visible_name());
    assert_eq!(browser.tree().await, question);
    // The keyboard alone gets through it.
    for name in ["Connect", "Cancel"] {
        browser.press(TAB).await;
        assert_eq!(browser.focused().await, ("button".into(), name.into()));
        browser.screenshot(&format!("confirm-focus-{name}")).await;
    }
    browser.leave(browser.press(ENTER)).await;
    look(&browser, &app, "cancelled").await;
    let text = "The account was not connected, and what nucleus was allowed to do with it was given \
                back. You can close this page.";
    let cancelled = told("Gmail was not connected", text);
    assert_eq!(browser.tree().await, cancelled);
    assert!(app.all("/integrations").await.is_empty());

    let url = answer(&app, begin, &Consent::default()).await;
    browser.open(&url).await;
    browser.press(TAB).await;
    browser.leave(browser.press(ENTER)).await;
    look(&browser, &app, "connected").await;
    let text = format!(
        "alex@example.com is connected for {}. The first sync begins now. You can close this page.",
        visible_name()
    );
    assert_eq!(browser.tree().await, told("Gmail is connected", &text));
    assert_eq!(app.all("/integrations").await.len(), 1);
    assert_eq!(browser.console().await, [""; 0]);
    app.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_connect_is_told_why_and_where_to_go() {
    let app = start().await;
    let entity = entity(&app).await;
    let browser = Browser::start().await;
    let begin = json!({"entity_id": entity});
    let title = "The account was not connected";
    // Somebody says no at the service.
    let no = Consent {
        cancelled: true,
        ..Consent::default()
    };
    browser.open(&answer(&app, begin.clone(), &no).await).await;
    look(&browser, &app, "denied").await;
    let denied = told(title, "Access was not granted: access_denied.");
    assert_eq!(browser.tree().await, denied);

    // Somebody chooses another account than before.
    let url = answer(&app, begin, &Consent::default()).await;
    browser.open(&url).await;
    browser.follow("button", "Connect").await;
    let other = Consent {
        account: Some(OTHER.to_owned()),
        ..Consent::default()
    };
    let begin = json!({"entity_id": entity, "return_to": "https://app.example/settings"});
    browser.open(&answer(&app, begin, &other).await).await;
    look(&browser, &app, "other-account").await;
    let text = format!(
        "The account {OTHER} was chosen, but alex@example.com is connected here: start again and \
         choose alex@example.com, or disconnect alex@example.com first; what was allowed was given back."
    );
    let link = "Go back to where you came from";
    let way_back = format!("    paragraph\n      link \"{link}\"\n");
    assert_eq!(browser.tree().await, told(title, &text) + &way_back);
    browser.press(TAB).await;
    assert_eq!(browser.focused().await, ("link".into(), link.into()));
    // The console says no more than that the pages are those of errors.
    let console = browser.console().await;
    assert_eq!(console.len(), 2, "{console:?}");
    for entry in console {
        assert!(entry.ends_with("status of 409 (Conflict)"), "{entry}");
    }
    app.drain().await;
}

/// Makes the page try what an attacker would who got markup into it, and notes what its policy forbids.
const ATTACK: &str = r#"
window.forbidden = [];
addEventListener("securitypolicyviolation", event => {
  if (event.disposition === "enforce") forbidden.push(event.effectiveDirective);
});
const add = (name, properties) => {
  const element = Object.assign(document.createElement(name), properties);
  document.body.append(element);
  return element;
};
add("script", { textContent: "window.injected = true" });
add("script", { src: "{elsewhere}/script.js" });
add("img", { src: "{elsewhere}/picture.png", onerror: "window.injected = true" });
add("iframe", { src: "{elsewhere}/frame" });
add("object", { data: "{elsewhere}/object" });
add("link", { rel: "stylesheet", href: "{elsewhere}/style.css" });
add("style", { textContent: "h1 { display: none }" });
add("div", { innerHTML: "<p style='color: red' onclick='window.injected = true'>Click.</p>" });
add("base", { href: "{elsewhere}/" });
fetch("{elsewhere}/data").catch(() => {});
add("form", { action: "{elsewhere}/form", method: "post" }).submit();
"#;
/// What came of it.
const OUTCOME: &str = r#"
document.querySelector("div > p").click();
return {
  forbidden: [...new Set(forbidden)].sort(),
  injected: "injected" in window,
  restyled: getComputedStyle(document.querySelector("h1")).display === "none",
  rebased: document.baseURI !== location.href,
};
"#;

#[tokio::test(flavor = "multi_thread")]
async fn markup_that_got_into_a_page_could_do_nothing() {
    let app = start().await;
    let reached = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&reached);
    let elsewhere = Router::new().fallback(move || async move {
        count.fetch_add(1, Ordering::SeqCst);
    });
    let elsewhere = serve(elsewhere).await;
    let begin = json!({"entity_id": entity(&app).await});
    let url = answer(&app, begin, &Consent::default()).await;
    let browser = Browser::start().await;
    browser.open(&url).await;
    let attack = ATTACK.replace("{elsewhere}", &elsewhere);
    browser.script(&attack).await;
    let expected = json!({
        "forbidden": [
            "base-uri", "connect-src", "form-action", "frame-src", "img-src", "object-src",
            "script-src-attr", "script-src-elem", "style-src-attr", "style-src-elem",
        ],
        "injected": false,
        "restyled": false,
        "rebased": false,
    });
    // A browser tells of each when it gets to it.
    let mut last = Value::Null;
    let is_so = happens(PATIENCE, async || {
        last = browser.script(OUTCOME).await;
        last == expected
    });
    assert!(is_so.await, "{last:#}");
    assert_eq!(reached.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_other_site_can_frame_the_question() {
    let app = start().await;
    let begin = json!({"entity_id": entity(&app).await});
    let url = answer(&app, begin, &Consent::default()).await;
    let html =
        format!("<title>Elsewhere</title><iframe src=\"{url}\"></iframe>").replace('&', "&amp;");
    let page = Router::new().fallback(move || {
        let html = html.clone();
        async move { Html(html) }
    });
    let elsewhere = serve(page).await;
    let browser = Browser::start().await;
    browser.open(&elsewhere).await;
    let console = browser.console().await;
    assert!(
        console
            .iter()
            .any(|entry| entry.contains("frame-ancestors")),
        "{console:?}"
    );
}
