//! The person's browser at the end of the OAuth flow, as small as the demonstration needs it: opens the
//! page that asks for a confirmation and presses its button.

use anyhow::{Context, bail};
use reqwest::header::{CONTENT_TYPE, COOKIE, SET_COOKIE};
use url::Url;

/// Opens pages and follows no redirect by itself.
pub(super) struct Browser {
    http: reqwest::Client,
}

impl Browser {
    #[expect(
        clippy::disallowed_methods,
        reason = "this client calls nucleus, not a service"
    )]
    pub(super) fn new() -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self { http })
    }

    /// Brings the service's answer to nucleus and confirms what nucleus asks.
    pub(super) async fn confirm(&self, answer: Url) -> anyhow::Result<()> {
        let opened = self.http.get(answer).send().await?;
        let status = opened.status();
        let cookie = opened
            .headers()
            .get(SET_COOKIE)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split(';').next())
            .context("the page set no cookie")?
            .to_owned();
        let page = opened.text().await?;
        if !status.is_success() {
            bail!("nucleus did not take the service's answer: {status}");
        }
        let action = between(&page, "action=\"", "\"").context("the page has no form")?;
        let id = between(&page, "name=\"confirmation\" value=\"", "\"")
            .context("the page names no confirmation")?;
        let confirmed = self
            .http
            .post(action)
            .header(COOKIE, cookie)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(format!("confirmation={id}&decision=connect"))
            .send()
            .await?;
        if !confirmed.status().is_success() {
            bail!("the account was not connected: {}", confirmed.status());
        }
        Ok(())
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    Some(rest.split_once(after)?.0)
}
