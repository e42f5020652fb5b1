//! The stand-in's consent page in a real browser: a person reads it, unticks, continues or cancels, and
//! the browser goes where the client said.

use std::sync::Arc;

use axum::{Router, http::Uri, routing::get};
use nucleus::{
    demo::{Mailbox, Options, StandIn},
    domain::SystemClock,
};
use tokio::sync::mpsc;
use url::Url;

use crate::{
    browser::{Browser, ENTER, Scheme, TAB},
    child::{PATIENCE, in_time},
    doubles::serve,
};

const GMAIL: &str = "https://www.googleapis.com/auth/gmail.readonly";
const CALENDAR: &str = "https://www.googleapis.com/auth/calendar.readonly";

/// What a screen reader gets of the page.
const PAGE: &str = r#"RootWebArea "Access to your account - stand-in for Google"
  main
    paragraph
      StaticText "This is a stand-in for Google. It knows no real account."
    heading "demo-client.apps.example.com wants access to your account" level=1
    form
      group "Your account"
        Legend
          StaticText "Your account"
        radio "alex@example.com" checked=true
        radio "blake@example.com"
      group "What it may do"
        Legend
          StaticText "What it may do"
        checkbox "View your email messages and settings" checked=true
        checkbox "See and download any calendar you can access using your Google Calendar" checked=true
      paragraph
        StaticText "Your answer goes to"
        code
          StaticText "{client}/back"
      button "Continue"
      button "Cancel"
"#;

/// A client that takes down what browsers bring it.
struct Client {
    url: String,
    brought: mpsc::UnboundedReceiver<Uri>,
}

impl Client {
    async fn start() -> Self {
        let (sender, brought) = mpsc::unbounded_channel();
        let take = move |uri: Uri| async move {
            sender.send(uri).unwrap();
            "Thank you."
        };
        let url = serve(Router::new().route("/back", get(take))).await;
        Self { url, brought }
    }

    /// The next answer.
    async fn answer(&mut self) -> Url {
        let uri = in_time(PATIENCE, self.brought.recv()).await.unwrap();
        format!("{}{uri}", self.url).parse().unwrap()
    }
}

fn parameter(url: &Url, name: &str) -> Option<String> {
    let found = url.query_pairs().find(|(own, _)| own == name);
    found.map(|(_, value)| value.into_owned())
}

async fn stand_in() -> StandIn {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let options = Options {
        other_accounts: vec!["blake@example.com".to_owned()],
        ..Options::default()
    };
    let mailbox = Mailbox::new("alex@example.com", 1);
    StandIn::start(mailbox, options, Arc::new(SystemClock))
        .await
        .unwrap()
}

fn authorization_url(google: &StandIn, client: &Client) -> String {
    let parameters = [
        ("client_id", Options::default().client_id),
        ("redirect_uri", format!("{}/back", client.url)),
        ("response_type", "code".to_owned()),
        ("scope", format!("{GMAIL} {CALENDAR}")),
        ("state", "a&b".to_owned()),
    ];
    Url::parse_with_params(&google.authorize_url(), parameters)
        .unwrap()
        .into()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_continues_is_sent_back_with_a_code_for_what_is_ticked() {
    let google = stand_in().await;
    let mut client = Client::start().await;
    let browser = Browser::start().await;
    browser.open(&authorization_url(&google, &client)).await;
    let tree = browser.tree().await;
    assert_eq!(tree, PAGE.replace("{client}", &client.url));
    let calendar = "See and download any calendar you can access using your Google Calendar";
    let blake = browser.control("radio", "blake@example.com").await;
    browser.click(&blake).await;
    browser
        .click(&browser.control("checkbox", calendar).await)
        .await;
    browser.follow("button", "Continue").await;
    let back = client.answer().await;
    assert_eq!(parameter(&back, "state").as_deref(), Some("a&b"));
    assert_eq!(parameter(&back, "scope").as_deref(), Some(GMAIL));
    assert!(parameter(&back, "code").is_some(), "{back}");
    assert_eq!(browser.url().await, back);
    assert_eq!(browser.text().await, "Thank you.");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_for_everyone() {
    let google = stand_in().await;
    let mut client = Client::start().await;
    let browser = Browser::start().await;
    let url = authorization_url(&google, &client);
    for scheme in [Scheme::Light, Scheme::Dark] {
        browser.prefer(scheme).await;
        for width in [320, 1280] {
            browser.resize(width, 800).await;
            browser.open(&url).await;
            let low = browser.low_contrast(4.5).await;
            assert!(low.is_empty(), "{scheme:?}: {low:#?}");
            assert_eq!(browser.overflow().await, 0, "{scheme:?} {width}");
            browser
                .screenshot(&format!("consent-{}-{width}", scheme.name()))
                .await;
        }
    }
    // The keyboard alone gets through it.
    let mut order = Vec::new();
    for _ in 0..5 {
        browser.press(TAB).await;
        order.push(browser.focused().await);
    }
    let expected = [
        ("radio", "alex@example.com"),
        ("checkbox", "View your email messages and settings"),
        (
            "checkbox",
            "See and download any calendar you can access using your Google Calendar",
        ),
        ("button", "Continue"),
        ("button", "Cancel"),
    ]
    .map(|(role, name)| (role.to_owned(), name.to_owned()));
    assert_eq!(order, expected);
    assert_eq!(browser.console().await, [""; 0]);
    browser.press(ENTER).await;
    let back = client.answer().await;
    assert_eq!(parameter(&back, "error").as_deref(), Some("access_denied"));
    let origins = [google.base_url(), client.url.as_str()];
    for requested in browser.requested().await {
        let origin = requested.origin().ascii_serialization();
        assert!(origins.contains(&origin.as_str()), "{requested}");
    }
}
