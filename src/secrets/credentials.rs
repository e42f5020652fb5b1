//! What a secret of an integration holds, and its JSON.
//!
//! The types here print redacted and have no Serialize: [`Credentials::seal`] and
//! [`Credentials::open`] are the only way into and out of bytes. This file encrypts nothing.
//!
//! The JSON is an object with `format` (1) and `kind`. Kind `oauth2` has refresh_token or access_token or
//! both, scopes and access_token_expires_at; kind `fields` has fields, an object of texts. A member
//! that is not known is ignored; a change that old programs must not ignore gets another format.

use std::{collections::BTreeMap, io};

use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::{SecretBytes, SecretError};
use crate::domain::time;

const FORMAT: u64 = 1;

/// The credentials of one integration.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// For credential type oauth2.
    OAuth2(OAuth2Credentials),
    /// For the other types (api_key, basic_auth, bearer_token): secret texts by name, as they came.
    Fields(BTreeMap<String, SecretString>),
}

/// What OAuth gave.
#[derive(Debug, Clone)]
pub struct OAuth2Credentials {
    /// Gives access tokens; a new version is written only when it changes. Some services give none:
    /// then there is an access token, and nothing after it.
    pub refresh_token: Option<SecretString>,
    /// What was granted.
    pub scopes: Vec<String>,
    /// The access token that came with the credentials; those obtained later stay in memory.
    pub access_token: Option<SecretString>,
    /// When [`OAuth2Credentials::access_token`] ends, where that is known.
    pub access_token_expires_at: Option<DateTime<Utc>>,
}

/// The JSON. Flat and of one piece: serde keeps copies of what it reads for tagged enums.
#[derive(Serialize, Deserialize)]
struct Document {
    format: u64,
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refresh_token: Option<Shown>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scopes: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    access_token: Option<Shown>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "time::serialize_option"
    )]
    access_token_expires_at: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fields: Option<BTreeMap<String, Shown>>,
}

/// The one member that is read before all others.
#[derive(Deserialize)]
struct Head {
    format: u64,
}

/// A secret text within [`Document`], wiped when dropped even if the rest cannot be read.
struct Shown(SecretString);

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose_secret())
    }
}

impl<'de> Deserialize<'de> for Shown {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(text.into()))
    }
}

impl OAuth2Credentials {
    /// The token that stands for the grant: revoking it ends what was granted, as far as the service
    /// lets one token do that.
    pub fn grant_token(&self) -> Option<&SecretString> {
        self.refresh_token.as_ref().or(self.access_token.as_ref())
    }
}

impl Credentials {
    /// As tokens: one that a person gave by hand is an access token, and nothing after it. None for a
    /// user name with a password.
    pub fn into_tokens(self) -> Option<OAuth2Credentials> {
        match self {
            Self::OAuth2(credentials) => Some(credentials),
            Self::Fields(mut fields) => {
                let token = fields
                    .remove("token")
                    .or_else(|| fields.remove("api_key"))?;
                Some(OAuth2Credentials {
                    refresh_token: None,
                    scopes: Vec::new(),
                    access_token: Some(token),
                    access_token_expires_at: None,
                })
            }
        }
    }

    /// The bytes for [`super::SecretStore::put`].
    pub fn seal(&self) -> Result<SecretBytes, SecretError> {
        let document = self.to_document();
        let mut length = Length(0);
        serde_json::to_writer(&mut length, &document).map_err(|_| not_written())?;
        // Room for everything at once: a vector that grows leaves copies of secrets behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(length.0));
        serde_json::to_writer(&mut *bytes, &document).map_err(|_| not_written())?;
        Ok(SecretBytes::from(std::mem::take(&mut *bytes)))
    }

    /// The credentials in what [`super::SecretStore::get`] gave.
    pub fn open(bytes: &SecretBytes) -> Result<Self, SecretError> {
        let head: Head = parse(bytes.expose_secret())?;
        if head.format != FORMAT {
            return Err(corrupt(format!(
                "their format is {}, this program knows {FORMAT}",
                head.format
            )));
        }
        let document: Document = parse(bytes.expose_secret())?;
        match document.kind.as_str() {
            "oauth2" => {
                if document.refresh_token.is_none() && document.access_token.is_none() {
                    return Err(corrupt("there is no token".to_owned()));
                }
                Ok(Self::OAuth2(OAuth2Credentials {
                    refresh_token: document.refresh_token.map(|token| token.0),
                    scopes: document.scopes.unwrap_or_default(),
                    access_token: document.access_token.map(|token| token.0),
                    access_token_expires_at: document.access_token_expires_at,
                }))
            }
            "fields" => {
                let fields = document
                    .fields
                    .ok_or_else(|| corrupt("there are no fields".to_owned()))?;
                let opened = fields.into_iter().map(|(name, text)| (name, text.0));
                Ok(Self::Fields(opened.collect()))
            }
            _ => Err(corrupt("their kind is not known".to_owned())),
        }
    }

    fn to_document(&self) -> Document {
        let mut document = Document {
            format: FORMAT,
            kind: String::new(),
            refresh_token: None,
            scopes: None,
            access_token: None,
            access_token_expires_at: None,
            fields: None,
        };
        match self {
            Self::OAuth2(oauth2) => {
                document.kind = "oauth2".to_owned();
                document.refresh_token = oauth2.refresh_token.clone().map(Shown);
                document.scopes = Some(oauth2.scopes.clone());
                document.access_token = oauth2.access_token.clone().map(Shown);
                document.access_token_expires_at = oauth2.access_token_expires_at;
            }
            Self::Fields(fields) => {
                document.kind = "fields".to_owned();
                let shown =
                    |(name, text): (&String, &SecretString)| (name.clone(), Shown(text.clone()));
                document.fields = Some(fields.iter().map(shown).collect());
            }
        }
        document
    }
}

/// Counts what is written to it.
struct Length(usize);

impl io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Serde's own messages quote what they found, so only the place is passed on.
fn parse<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, SecretError> {
    serde_json::from_slice(bytes).map_err(|error| {
        corrupt(format!(
            "they are not the expected JSON (line {}, column {})",
            error.line(),
            error.column()
        ))
    })
}

fn corrupt(reason: String) -> SecretError {
    SecretError::Corrupt {
        what: "the stored credentials".to_owned(),
        reason,
    }
}

fn not_written() -> SecretError {
    SecretError::Rejected("the credentials cannot be written as JSON".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oauth2() -> OAuth2Credentials {
        OAuth2Credentials {
            refresh_token: Some("1//canary-refresh \"quoted\" ü".into()),
            scopes: vec!["https://mail.google.com/".to_owned(), "email".to_owned()],
            access_token: Some("ya29.canary-access".into()),
            access_token_expires_at: Some("2026-08-01T12:00:00.000001Z".parse().unwrap()),
        }
    }

    fn bytes(text: &str) -> SecretBytes {
        text.as_bytes().to_vec().into()
    }

    fn text(bytes: &SecretBytes) -> &str {
        str::from_utf8(bytes.expose_secret()).unwrap()
    }

    #[test]
    fn oauth2_credentials_read_back_as_written() {
        let sealed = Credentials::OAuth2(oauth2()).seal().unwrap();
        let Credentials::OAuth2(opened) = Credentials::open(&sealed).unwrap() else {
            panic!("another kind came back");
        };
        let before = oauth2();
        let shown = |token: &Option<SecretString>| {
            token.as_ref().map(|text| text.expose_secret().to_owned())
        };
        assert_eq!(shown(&opened.refresh_token), shown(&before.refresh_token));
        assert_eq!(opened.scopes, before.scopes);
        assert_eq!(shown(&opened.access_token), shown(&before.access_token));
        assert_eq!(
            opened.access_token_expires_at,
            before.access_token_expires_at
        );
    }

    #[test]
    fn fields_read_back_as_written() {
        let fields = BTreeMap::from([
            ("password".to_owned(), SecretString::from("canary")),
            ("user".to_owned(), SecretString::from("")),
        ]);
        let sealed = Credentials::Fields(fields).seal().unwrap();
        assert_eq!(
            text(&sealed),
            r#"{"format":1,"kind":"fields","fields":{"password":"canary","user":""}}"#
        );
        let Credentials::Fields(opened) = Credentials::open(&sealed).unwrap() else {
            panic!("another kind came back");
        };
        assert_eq!(opened.len(), 2);
        assert_eq!(opened["password"].expose_secret(), "canary");
        assert_eq!(opened["user"].expose_secret(), "");
    }

    #[test]
    fn the_json_is_the_documented_one() {
        let credentials = Credentials::OAuth2(OAuth2Credentials {
            refresh_token: Some("r".into()),
            scopes: vec!["s".to_owned()],
            access_token: None,
            access_token_expires_at: None,
        });
        assert_eq!(
            text(&credentials.seal().unwrap()),
            r#"{"format":1,"kind":"oauth2","refresh_token":"r","scopes":["s"]}"#
        );
        let full = Credentials::OAuth2(oauth2()).seal().unwrap();
        assert!(text(&full).ends_with(
            r#""access_token":"ya29.canary-access","access_token_expires_at":"2026-08-01T12:00:00.000001Z"}"#
        ));
    }

    #[test]
    fn members_of_later_programs_are_ignored_and_later_formats_are_not() {
        let later = r#"{"format":1,"kind":"oauth2","refresh_token":"r","more":[1]}"#;
        assert!(Credentials::open(&bytes(later)).is_ok());
        let error = Credentials::open(&bytes(r#"{"format":2,"kind":7}"#)).unwrap_err();
        assert!(error.to_string().contains("their format is 2"), "{error}");
    }

    #[test]
    fn what_is_not_credentials_is_corrupt_and_is_not_quoted() {
        for json in [
            "",
            "canary",
            r#""canary""#,
            r#"{"kind":"oauth2","refresh_token":"canary"}"#,
            r#"{"format":"canary"}"#,
            r#"{"format":1,"kind":"canary"}"#,
            r#"{"format":1,"kind":"oauth2","scopes":["canary"]}"#,
            r#"{"format":1,"kind":"oauth2","refresh_token":"canary","scopes":"canary"}"#,
            r#"{"format":1,"kind":"oauth2","refresh_token":"canary"} canary"#,
            r#"{"format":1,"kind":"oauth2","refresh_token":"canary","access_token_expires_at":"canary"}"#,
            r#"{"format":1,"kind":"fields"}"#,
            r#"{"format":1,"kind":"fields","fields":{"a":["canary"]}}"#,
        ] {
            let error = Credentials::open(&bytes(json)).unwrap_err();
            assert!(matches!(error, SecretError::Corrupt { .. }), "{json}");
            assert!(
                !format!("{error} {error:?}").contains("canary"),
                "{error:?}"
            );
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let oauth2 = Credentials::OAuth2(oauth2());
        let fields = BTreeMap::from([("user".to_owned(), SecretString::from("canary"))]);
        let sealed = oauth2.seal().unwrap();
        let shown = format!("{oauth2:?} {:?} {sealed:?}", Credentials::Fields(fields));
        assert!(!shown.contains("canary"), "{shown}");
        assert!(shown.contains("REDACTED"), "{shown}");
    }
}
