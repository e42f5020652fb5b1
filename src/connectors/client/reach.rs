//! Whether something answers at an address, as it would answer the calls that are made in earnest: the
//! same TLS, proxies and resolver. No token, no quota, no second attempt.

use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::header::DATE;
use url::Url;

use super::{ApiClient, describe, read_start};

/// Whoever looks does not wait longer for an answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// An answer, whatever it says.
#[derive(Debug)]
pub struct Reached {
    /// Its status.
    pub status: u16,
    /// What time it was there when it answered, to the second (RFC 9110, 6.6.1).
    pub date: Option<DateTime<Utc>>,
    /// The beginning of its body.
    pub body: Vec<u8>,
}

impl ApiClient {
    /// Asks once for `url`. The error says why nothing answered.
    pub async fn reach(&self, url: &Url) -> Result<Reached, String> {
        let client = self.client_for(url).map_err(|error| error.to_string())?;
        let request = client.get(url.clone()).timeout(DEADLINE);
        let response = request.send().await.map_err(describe)?;
        let date = response.headers().get(DATE).and_then(|text| {
            let date = DateTime::parse_from_rfc2822(text.to_str().ok()?).ok()?;
            Some(date.to_utc())
        });
        Ok(Reached {
            status: response.status().as_u16(),
            date,
            body: read_start(response).await,
        })
    }
}
