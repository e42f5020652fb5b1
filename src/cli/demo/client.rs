//! A client of nucleus' own API, as small as the demonstration needs it.

use anyhow::{Context, bail};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

/// Calls the API with the operator's key.
pub(super) struct Client {
    http: reqwest::Client,
    pub(super) base_url: String,
    pub(super) key: SecretString,
}

impl Client {
    #[expect(
        clippy::disallowed_methods,
        reason = "this client calls nucleus, not a service"
    )]
    pub(super) fn new(base_url: String, key: SecretString) -> anyhow::Result<Self> {
        Ok(Self {
            http: reqwest::Client::builder().build()?,
            base_url,
            key,
        })
    }

    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.send(self.http.get(format!("{}{path}", self.base_url)))
            .await
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        let request = self
            .http
            .post(format!("{}{path}", self.base_url))
            .header("content-type", "application/json")
            .body(body.to_string());
        self.send(request).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Value> {
        let response = request.bearer_auth(self.key.expose_secret()).send().await?;
        let status = response.status();
        let body: Value = serde_json::from_slice(&response.bytes().await?)
            .with_context(|| format!("the API answered {status} and no JSON"))?;
        if !status.is_success() {
            bail!("the API answered {status}: {}", body["detail"]);
        }
        Ok(body)
    }

    /// Every item of a list.
    pub(super) async fn all(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut cursor = String::new();
        loop {
            let joint = if path.contains('?') { '&' } else { '?' };
            let mut page = self.get(&format!("{path}{joint}limit=500{cursor}")).await?;
            match page["items"].take() {
                Value::Array(more) => items.extend(more),
                other => bail!("{path} has no items but {other}"),
            }
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(items),
            }
        }
    }
}

/// A field that must be a text.
pub(super) fn text(value: &Value, field: &str) -> anyhow::Result<String> {
    let text = value[field]
        .as_str()
        .with_context(|| format!("the answer has no {field}"))?;
    Ok(text.to_owned())
}
