//! Revoking a grant at its service, in the service's own way. What answers is not trusted, as at a token
//! endpoint.

use reqwest::header::{ACCEPT, CONTENT_TYPE};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use url::Url;

use super::{
    OAuthConfig,
    endpoint::{Asked, EndpointError, TokenEndpoint, authenticated},
};
use crate::providers::Revocation;

impl TokenEndpoint {
    /// Revokes a grant by one of its tokens: of which kind says [`Revocation::wants_access_token`]. A
    /// grant that was void before is an [`EndpointError::Gone`].
    pub async fn revoke(
        &self,
        config: &OAuthConfig,
        token: &SecretString,
    ) -> Result<(), EndpointError> {
        let oauth = &config.provider.oauth;
        let fields = vec![("token", token.expose_secret())];
        let asked = Asked::of(config, &fields);
        let request = match oauth.revocation {
            Revocation::NotOffered => return Err(not_offered()),
            Revocation::Token => self.http.post(place(config)?).form(&fields),
            Revocation::TokenOfClient | Revocation::AccessTokenOfClient => {
                authenticated(self.http.post(place(config)?), config, fields)?
            }
            Revocation::GrantOfClient => {
                let (Some(id), Some(secret)) = (&config.client_id, &config.client_secret) else {
                    return Err(EndpointError::Client(
                        "a grant is revoked by the client's id and secret".to_owned(),
                    ));
                };
                let body = json!({"access_token": token.expose_secret()}).to_string();
                self.http
                    .delete(of_api(config, &format!("/applications/{id}/grant"))?)
                    .basic_auth(id, Some(secret.expose_secret()))
                    .header(CONTENT_TYPE, "application/json")
                    .body(body)
            }
            Revocation::OwnToken => {
                let url = of_api(config, "/api/auth.revoke")?;
                self.request(reqwest::Method::POST, url, token)
            }
        };
        let (status, _, body) = self
            .send(request.header(ACCEPT, "application/json"))
            .await
            .map_err(EndpointError::Unavailable)?;
        match status {
            200..300 => asked.error_in_200(&body).map_or(Ok(()), Err),
            // <https://docs.github.com/en/rest/apps/oauth-applications>: a token that it does not know.
            404 | 422 if oauth.revocation == Revocation::GrantOfClient => Err(EndpointError::Gone(
                "the service does not know the token".to_owned(),
            )),
            _ => Err(asked.refusal(status, &body)),
        }
    }
}

fn not_offered() -> EndpointError {
    EndpointError::Client("the service has no revocation endpoint".to_owned())
}

fn place(config: &OAuthConfig) -> Result<Url, EndpointError> {
    config.revoke_url.clone().ok_or_else(not_offered)
}

fn of_api(config: &OAuthConfig, path: &str) -> Result<Url, EndpointError> {
    let base = config.api_url.as_str().trim_end_matches('/');
    format!("{base}{path}")
        .parse()
        .map_err(|error| EndpointError::Client(format!("the API's address is wrong: {error}")))
}
