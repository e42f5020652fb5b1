//! What holds a secret can be neither serialised nor displayed: where it could, this file would not
//! compile. What can be debugged prints a redaction.

use std::fmt::{Debug, Display};

use nucleus::{
    app::App,
    config::Config,
    keys::Key,
    oauth::{OAuthConfig, endpoint::Tokens},
    secrets::{Credentials, Keys, OAuth2Credentials, SecretBytes, VaultKey},
};
use secrecy::{SecretBox, SecretString};
use serde::Serialize;
use static_assertions::assert_not_impl_any;

// What every field with a secret is, so that nothing which has one can derive these.
assert_not_impl_any!(SecretString: Serialize, Display);
assert_not_impl_any!(SecretBox<[u8; 32]>: Serialize, Display);
assert_not_impl_any!(SecretBytes: Serialize, Display);
// What could implement them by hand.
assert_not_impl_any!(Key: Serialize, Display, Debug);
assert_not_impl_any!(Keys: Serialize, Display);
assert_not_impl_any!(VaultKey: Serialize, Display);
assert_not_impl_any!(Credentials: Serialize, Display);
assert_not_impl_any!(OAuth2Credentials: Serialize, Display);
assert_not_impl_any!(Tokens: Serialize, Display);
assert_not_impl_any!(OAuthConfig: Serialize, Display);
assert_not_impl_any!(Config: Serialize, Display);
assert_not_impl_any!(App: Serialize, Display, Debug);

const CANARY: &str = "canary-7f3b0c";

fn assert_redacted(value: &impl Debug) {
    for shown in [format!("{value:?}"), format!("{value:#?}")] {
        assert!(!shown.contains(CANARY), "{shown}");
        assert!(shown.contains("REDACTED"), "{shown}");
    }
}

#[test]
fn what_can_be_debugged_prints_a_redaction() {
    let secret = || SecretString::from(CANARY);
    assert_redacted(&secret());
    assert_redacted(&SecretBytes::from(CANARY.as_bytes().to_vec()));
    let tokens = Tokens {
        access_token: secret(),
        expires_at: None,
        refresh_token: Some(secret()),
        consent_expires_at: None,
        scope: None,
    };
    assert_redacted(&tokens);
    let credentials = OAuth2Credentials {
        refresh_token: Some(secret()),
        scopes: Vec::new(),
        access_token: Some(secret()),
        access_token_expires_at: None,
    };
    assert_redacted(&credentials);
    assert_redacted(&Credentials::OAuth2(credentials));
    let fields = [("token".to_owned(), secret())];
    assert_redacted(&Credentials::Fields(fields.into()));
}
