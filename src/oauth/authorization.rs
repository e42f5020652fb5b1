//! The authorization request and what comes back: state, PKCE, issuer, scopes. Pure.
//!
//! The code verifier is kept nowhere. It is a hash of the state, which only the browser has, and a
//! salt, which only the database has: whoever sees one of the two cannot exchange a code.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rand::RngCore;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use url::Url;

use super::OAuthConfig;
use crate::{
    domain::ServiceName,
    providers::{OAuth, Provider},
};

/// Random bytes of a state, a salt and a browser's cookie. RFC 6819, section 5.1.4.2.2, asks for 128
/// bits at least.
const RANDOM_BYTES: usize = 32;

/// 256 random bits in base64url.
pub fn random_text() -> String {
    let mut bytes = [0_u8; RANDOM_BYTES];
    rand::rng().fill_bytes(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Whether a text may be one of [`random_text`].
pub fn is_random_text(text: &str) -> bool {
    text.len() == 43
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// Lower-case hex SHA-256, which is what the database keeps of a random text.
pub fn hash(text: &str) -> String {
    format!("{:x}", Sha256::digest(text.as_bytes()))
}

/// The code verifier of the flow with this state and salt (RFC 7636, section 4.1).
pub fn code_verifier(state: &str, salt: &str) -> SecretString {
    let mut digest = Sha256::new();
    for part in ["code verifier", salt, state] {
        digest.update(part.as_bytes());
        digest.update([0]);
    }
    URL_SAFE_NO_PAD.encode(digest.finalize()).into()
}

/// The S256 challenge of a verifier (RFC 7636, section 4.2).
fn code_challenge(verifier: &SecretString) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.expose_secret().as_bytes()))
}

/// Where a service's authorization server sends browsers back to; it is registered there letter by
/// letter. `public_url` has no slash at its end.
pub fn redirect_uri(public_url: &str, service: ServiceName) -> String {
    format!("{public_url}/integrations/{service}/oauth/callback")
}

/// What one authorization request says beside what the service is always asked.
#[derive(Debug)]
pub struct AuthorizationRequest<'a> {
    /// The registered client's id.
    pub client_id: &'a str,
    /// Where the browser is sent back to; it is registered with the service letter by letter.
    pub redirect_uri: &'a str,
    /// Binds the answer to this flow.
    pub state: &'a str,
    /// Binds the code to this flow.
    pub verifier: &'a SecretString,
    /// What people know the account by that is to be connected again; none where any will do.
    pub account_name: Option<&'a str>,
}

/// Where the person's browser is sent (RFC 6749, section 4.1.1).
pub fn authorization_url(config: &OAuthConfig, request: &AuthorizationRequest<'_>) -> Url {
    let oauth = &config.provider.oauth;
    let mut url = config.authorize_url.clone();
    let mut query = url.query_pairs_mut();
    query
        .append_pair("response_type", "code")
        .append_pair("client_id", request.client_id)
        .append_pair("redirect_uri", request.redirect_uri);
    if !oauth.scopes.is_empty() {
        let scopes = oauth.scopes.join(oauth.scope_separator);
        query.append_pair(oauth.scope_parameter, &scopes);
    }
    query.append_pair("state", request.state);
    if oauth.pkce {
        query
            .append_pair("code_challenge", &code_challenge(request.verifier))
            .append_pair("code_challenge_method", "S256");
    }
    query.extend_pairs(oauth.parameters);
    query.extend_pairs(oauth.account_hint.zip(request.account_name));
    drop(query);
    url
}

/// Whether an answer may come from the configured authorization server: one that does not say who it
/// is may, because not all do (RFC 9207, section 2.4).
pub fn is_issuer(config: &OAuthConfig, iss: Option<&str>) -> bool {
    let Some(iss) = iss else { return true };
    let configured = config.authorize_url.origin();
    let origin_of = |text: &str| Url::parse(text).map(|url| url.origin());
    let vendors_own = origin_of(config.provider.endpoints.authorize);
    if vendors_own.as_ref() != Ok(&configured) {
        // A server in the vendor's place; its own identifier is its origin.
        return iss == configured.ascii_serialization();
    }
    match config.provider.oauth.issuer {
        Some(issuer) => iss == issuer,
        // The vendor has published none, so all that can be asked is that it is its own.
        None => origin_of(iss).as_ref() == Ok(&configured),
    }
}

/// The scopes in a token answer. An answer without any means those that were asked for (RFC 6749,
/// section 5.1).
pub fn granted(provider: &Provider, scope: Option<&str>) -> Vec<String> {
    match scope {
        Some(scope) => OAuth::scopes_in(scope),
        None => provider
            .oauth
            .scopes
            .iter()
            .map(|&scope| scope.to_owned())
            .collect(),
    }
}

/// The scopes that are needed and were not granted: at some services a person can untick them.
pub fn missing(provider: &Provider, granted: &[String]) -> Vec<String> {
    provider.oauth.missing(provider.oauth.scopes, granted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::ServiceName, providers};

    const GMAIL: &str = "https://www.googleapis.com/auth/gmail.readonly";

    fn config(name: ServiceName, authorize_url: Option<&str>) -> OAuthConfig {
        let provider = providers::of(name);
        let endpoints = provider.endpoints;
        OAuthConfig {
            provider,
            client_id: Some("the client".to_owned()),
            client_secret: None,
            authorize_url: authorize_url
                .unwrap_or(endpoints.authorize)
                .parse()
                .unwrap(),
            token_url: endpoints.token.parse().unwrap(),
            revoke_url: None,
            api_url: endpoints.api.parse().unwrap(),
        }
    }

    /// The parameters of a request to the service, in order.
    fn asked(config: &OAuthConfig) -> Vec<(String, String)> {
        asked_for(config, None)
    }

    /// As [`asked`], for the account with this name.
    fn asked_for(config: &OAuthConfig, account_name: Option<&str>) -> Vec<(String, String)> {
        let verifier = SecretString::from("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        let request = AuthorizationRequest {
            client_id: "the client",
            redirect_uri: "https://n.example/back",
            state: "s",
            verifier: &verifier,
            account_name,
        };
        let url = authorization_url(config, &request);
        assert!(!url.as_str().contains(verifier.expose_secret()));
        url.query_pairs().into_owned().collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        let own = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        expected.iter().map(own).collect()
    }

    #[test]
    fn the_request_says_everything_once() {
        let url = "https://accounts.google.com/o/oauth2/v2/auth?hd=example.com";
        let expected = [
            ("hd", "example.com"),
            ("response_type", "code"),
            ("client_id", "the client"),
            ("redirect_uri", "https://n.example/back"),
            ("scope", GMAIL),
            ("state", "s"),
            // The challenge of RFC 7636, appendix B.
            (
                "code_challenge",
                "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
            ),
            ("code_challenge_method", "S256"),
            ("access_type", "offline"),
            ("prompt", "consent"),
        ];
        let config = config(ServiceName::Gmail, Some(url));
        assert_eq!(asked(&config), pairs(&expected));
        let hinted = [&expected[..], &[("login_hint", "me@example.com")]].concat();
        let asked = asked_for(&config, Some("me@example.com"));
        assert_eq!(asked, pairs(&hinted));
    }

    #[test]
    fn each_service_is_asked_in_its_own_way() {
        let value = |name: ServiceName, parameter: &str| {
            let found = asked(&config(name, None));
            let mut found = found.into_iter().filter(|(own, _)| own == parameter);
            let value = found.next().map(|(_, value)| value);
            assert_eq!(found.next(), None, "{name}: {parameter} twice");
            value
        };
        let slack = value(ServiceName::Slack, "user_scope").unwrap();
        assert!(slack.starts_with("channels:read,groups:read,"), "{slack}");
        assert_eq!(value(ServiceName::Slack, "scope"), None);
        assert_eq!(value(ServiceName::Notion, "scope"), None);
        assert_eq!(value(ServiceName::Notion, "owner").as_deref(), Some("user"));
        assert_eq!(
            value(ServiceName::Github, "scope").as_deref(),
            Some("read:user repo gist")
        );
        let without = [
            ServiceName::Notion,
            ServiceName::Slack,
            ServiceName::Linkedin,
        ];
        for name in ServiceName::ALL {
            let method = value(name, "code_challenge_method");
            let expected = (!without.contains(&name)).then_some("S256");
            assert_eq!(method.as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn a_verifier_needs_both_halves_and_is_one_of_rfc_7636() {
        let (state, salt) = (random_text(), random_text());
        let verifier = code_verifier(&state, &salt);
        assert_eq!(
            verifier.expose_secret(),
            code_verifier(&state, &salt).expose_secret()
        );
        for (state, salt) in [(&state, &state), (&salt, &salt), (&salt, &state)] {
            let other = code_verifier(state, salt);
            assert_ne!(other.expose_secret(), verifier.expose_secret());
        }
        assert!(is_random_text(verifier.expose_secret()));
        assert!(is_random_text(&state));
        for wrong in [
            "",
            "short",
            &format!("{state}="),
            &state.replace(&state[..1], "/"),
        ] {
            assert!(!is_random_text(wrong), "{wrong}");
        }
        assert_ne!(random_text(), random_text());
    }

    #[test]
    fn an_answer_of_another_server_is_not_taken() {
        let google = config(ServiceName::Gmail, None);
        assert!(is_issuer(&google, None));
        assert!(is_issuer(&google, Some("https://accounts.google.com")));
        for wrong in [
            "",
            "https://accounts.google.com/",
            "https://accounts.google.com.attacker.example",
            "http://accounts.google.com",
            "https://github.com/login/oauth",
        ] {
            assert!(!is_issuer(&google, Some(wrong)), "{wrong}");
        }
        let emulated = config(
            ServiceName::Gmail,
            Some("http://127.0.0.1:4711/o/oauth2/v2/auth"),
        );
        assert!(is_issuer(&emulated, Some("http://127.0.0.1:4711")));
        assert!(!is_issuer(&emulated, Some("https://accounts.google.com")));
        let github = config(ServiceName::Github, None);
        assert!(is_issuer(&github, None));
        assert!(is_issuer(&github, Some("https://github.com/login/oauth")));
        for wrong in ["", "github.com", "http://github.com", "https://slack.com"] {
            assert!(!is_issuer(&github, Some(wrong)), "{wrong}");
        }
    }

    #[test]
    fn scopes_that_were_unticked_are_named() {
        let google = providers::of(ServiceName::Gmail);
        let granted_all = granted(google, None);
        assert!(missing(google, &granted_all).is_empty());
        let some = granted(
            google,
            Some("openid  https://www.googleapis.com/auth/other"),
        );
        assert_eq!(missing(google, &some), [GMAIL]);
        assert_eq!(missing(google, &granted(google, Some(""))), [GMAIL]);
        let linkedin = providers::of(ServiceName::Linkedin);
        let commas = granted(linkedin, Some("email,openid,profile"));
        assert!(missing(linkedin, &commas).is_empty());
    }
}
