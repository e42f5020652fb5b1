//! The authorization request and what comes back: state, PKCE, issuer, scopes. Pure.
//!
//! The code verifier is kept nowhere. It is a hash of the state, which only the browser has, and a
//! salt, which only the database has: whoever sees one of the two cannot exchange a code.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rand::RngCore;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use url::Url;

use super::{Consent, OAuthConfig};
use crate::domain::ServiceName;

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
}

/// Where the person's browser is sent (RFC 6749, section 4.1.1).
pub fn authorization_url(
    config: &OAuthConfig,
    consent: &Consent,
    request: &AuthorizationRequest<'_>,
) -> Url {
    let mut url = config.authorize_url.clone();
    url.query_pairs_mut()
        .append_pair("response_type", "code")
        .append_pair("client_id", request.client_id)
        .append_pair("redirect_uri", request.redirect_uri)
        .append_pair("scope", &consent.scopes.join(" "))
        .append_pair("state", request.state)
        .append_pair("code_challenge", &code_challenge(request.verifier))
        .append_pair("code_challenge_method", "S256")
        .extend_pairs(consent.parameters);
    url
}

/// Whether an answer may come from the configured authorization server: one that does not say who it
/// is may, because not all do (RFC 9207, section 2.4).
pub fn is_issuer(config: &OAuthConfig, consent: &Consent, iss: Option<&str>) -> bool {
    let Some(iss) = iss else { return true };
    let configured = config.authorize_url.origin();
    let vendor = Url::parse(consent.issuer).map(|issuer| issuer.origin());
    if vendor.as_ref() == Ok(&configured) {
        iss == consent.issuer
    } else {
        // A server in the vendor's place; its own identifier is its origin.
        iss == configured.ascii_serialization()
    }
}

/// The scopes in a token answer. An answer without any means those that were asked for (RFC 6749,
/// section 5.1).
pub fn granted(consent: &Consent, scope: Option<&str>) -> Vec<String> {
    match scope {
        Some(scope) => scope.split_whitespace().map(str::to_owned).collect(),
        None => consent
            .scopes
            .iter()
            .map(|&scope| scope.to_owned())
            .collect(),
    }
}

/// The scopes that are needed and were not granted: at some services a person can untick them.
pub fn missing(consent: &Consent, granted: &[String]) -> Vec<String> {
    consent
        .scopes
        .iter()
        .filter(|needed| !granted.iter().any(|scope| scope == *needed))
        .map(|&scope| scope.to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSENT: Consent = Consent {
        scopes: &["mail.read", "mail.labels"],
        parameters: &[("access_type", "offline"), ("prompt", "consent")],
        issuer: "https://accounts.google.com",
    };

    fn config(authorize_url: &str) -> OAuthConfig {
        OAuthConfig {
            client_id: Some("the client".to_owned()),
            client_secret: None,
            authorize_url: authorize_url.parse().unwrap(),
            token_url: "https://oauth2.googleapis.com/token".parse().unwrap(),
            revoke_url: None,
        }
    }

    #[test]
    fn the_request_says_everything_once() {
        let config = config("https://accounts.google.com/o/oauth2/v2/auth?hd=example.com");
        let verifier = SecretString::from("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        let request = AuthorizationRequest {
            client_id: "the client",
            redirect_uri: "https://n.example/integrations/gmail/oauth/callback",
            state: "s",
            verifier: &verifier,
        };
        let url = authorization_url(&config, &CONSENT, &request);
        let pairs: Vec<_> = url.query_pairs().into_owned().collect();
        let expected = [
            ("hd", "example.com"),
            ("response_type", "code"),
            ("client_id", "the client"),
            (
                "redirect_uri",
                "https://n.example/integrations/gmail/oauth/callback",
            ),
            ("scope", "mail.read mail.labels"),
            ("state", "s"),
            // The challenge of RFC 7636, appendix B.
            (
                "code_challenge",
                "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
            ),
            ("code_challenge_method", "S256"),
            ("access_type", "offline"),
            ("prompt", "consent"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(pairs, expected);
        assert!(!url.as_str().contains(verifier.expose_secret()));
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
        let google = config("https://accounts.google.com/o/oauth2/v2/auth");
        assert!(is_issuer(&google, &CONSENT, None));
        assert!(is_issuer(
            &google,
            &CONSENT,
            Some("https://accounts.google.com")
        ));
        for wrong in [
            "",
            "https://accounts.google.com/",
            "https://accounts.google.com.attacker.example",
            "http://accounts.google.com",
            "https://github.com/login/oauth",
        ] {
            assert!(!is_issuer(&google, &CONSENT, Some(wrong)), "{wrong}");
        }
        let emulated = config("http://127.0.0.1:4711/o/oauth2/v2/auth");
        assert!(is_issuer(
            &emulated,
            &CONSENT,
            Some("http://127.0.0.1:4711")
        ));
        assert!(!is_issuer(&emulated, &CONSENT, Some(CONSENT.issuer)));
    }

    #[test]
    fn scopes_that_were_unticked_are_named() {
        let granted_all = granted(&CONSENT, None);
        assert!(missing(&CONSENT, &granted_all).is_empty());
        let some = granted(&CONSENT, Some("openid  mail.labels"));
        assert_eq!(missing(&CONSENT, &some), ["mail.read"]);
        assert_eq!(missing(&CONSENT, &granted(&CONSENT, Some(""))).len(), 2);
    }
}
