//! What a client says of an integration: bodies, and the rules their fields keep. Every mistake of
//! a body is told at once.

use chrono::{DateTime, TimeDelta, Utc};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use subtle::ConstantTimeEq;
use url::Url;
use utoipa::{
    ToSchema,
    openapi::schema::{
        AdditionalProperties, ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema, SchemaFormat, Type,
    },
};

use super::error::{ApiError, FieldError};
use crate::{
    domain::{CredentialType, EntityId, ServiceName, sync::IntegrationStatus},
    oauth::OAuthConfig,
    secrets::{Credentials, OAuth2Credentials},
    sync::SyncSettings,
};

/// Longest display name and service type, in characters.
pub(super) const MAX_NAME_CHARS: usize = 255;
pub(super) const MAX_SERVICE_TYPE_CHARS: usize = 50;
/// Longest description, in characters.
pub(super) const MAX_DESCRIPTION_CHARS: usize = 10_000;
/// Longest token, in bytes; Google's are below 2,048.
const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// Most scopes of one integration; what is kept of them fits into a secret of 64 KiB.
pub(super) const MAX_SCOPES: usize = 50;
/// Longest life of an access token that is believed, in seconds: a year.
pub(super) const MAX_EXPIRES_IN: i64 = 365 * 24 * 3600;

/// An account to be connected.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewIntegration {
    /// Its owner.
    pub(super) entity_id: EntityId,
    /// The service. An entity connects each service once.
    pub(super) service_name: ServiceName,
    /// The owner's own word for the kind of service.
    #[schema(max_length = 50)]
    pub(super) service_type: Option<String>,
    /// What people call it.
    #[schema(max_length = 255)]
    pub(super) display_name: Option<String>,
    /// For people.
    #[schema(max_length = 10_000)]
    pub(super) description: Option<String>,
    /// How it authenticates; `GET /services` tells what each service takes.
    pub(super) credential_type: CredentialType,
    /// What `credential_type` needs. It is never answered.
    #[schema(schema_with = credentials_schema)]
    pub(super) credentials: Map<String, Value>,
    /// The scopes that the credentials carry; instead of `credentials.scopes`. Where the service tells
    /// the scopes of a token, its word counts.
    #[schema(max_items = 50)]
    pub(super) scopes: Option<Vec<String>>,
    /// The owner's own settings of the connector.
    #[schema(value_type = Option<Object>)]
    pub(super) config: Option<Map<String, Value>>,
    /// How and when to sync.
    #[schema(value_type = Option<SyncSettings>)]
    pub(super) sync_settings: Option<Value>,
    /// Seconds after which `credentials.access_token` ends.
    #[schema(minimum = 1, maximum = 31_536_000)]
    pub(super) token_expires_in: Option<i64>,
}

/// What to change. What is absent stays; null clears.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangedIntegration {
    /// What people call it.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, max_length = 255)]
    pub(super) display_name: Option<Option<String>>,
    /// For people.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, max_length = 10_000)]
    pub(super) description: Option<Option<String>>,
    /// The owner's own settings of the connector, as a whole.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Object>)]
    pub(super) config: Option<Option<Map<String, Value>>>,
    /// How and when to sync, as a whole: what is absent in it becomes the default.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<SyncSettings>)]
    pub(super) sync_settings: Option<Option<Value>>,
    /// Switches it on or off.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    pub(super) status: Option<SetStatus>,
    /// Other credentials of the same type. They are never answered.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(schema_with = credentials_schema)]
    pub(super) credentials: Option<Map<String, Value>>,
}

/// The statuses that an owner may set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum SetStatus {
    Active,
    Inactive,
}

impl From<SetStatus> for IntegrationStatus {
    fn from(status: SetStatus) -> Self {
        match status {
            SetStatus::Active => Self::Active,
            SetStatus::Inactive => Self::Inactive,
        }
    }
}

/// One object for each type of credentials, as [`Check::credentials`] takes them.
fn credentials_schema() -> Schema {
    let text = || {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .min_length(Some(1))
            .max_length(Some(MAX_TOKEN_BYTES))
    };
    let closed =
        || ObjectBuilder::new().additional_properties(Some(AdditionalProperties::FreeForm(false)));
    let scopes = ArrayBuilder::new()
        .items(ObjectBuilder::new().schema_type(Type::String))
        .max_items(Some(MAX_SCOPES));
    let oauth2 = closed()
        .title(Some("oauth2"))
        .description(Some(
            "What is said of the client must be what is configured: only its own tokens can be \
             refreshed.",
        ))
        .property("refresh_token", text())
        .required("refresh_token")
        .property("access_token", text())
        .property("client_id", text())
        .property("client_secret", text())
        .property(
            "token_uri",
            text().format(Some(SchemaFormat::Custom("uri".to_owned()))),
        )
        .property("scopes", scopes);
    let mut schema = OneOfBuilder::new()
        .description(Some("What `credential_type` needs. It is never answered."))
        .item(oauth2);
    for kind in [
        CredentialType::ApiKey,
        CredentialType::BasicAuth,
        CredentialType::BearerToken,
    ] {
        let mut object = closed().title(Some(kind.as_str()));
        for field in kind.fields() {
            object = object.property(*field, text()).required(*field);
        }
        schema = schema.item(object);
    }
    schema.build().into()
}

/// Tells a null from an absent field.
fn given<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

/// For what cannot be cleared.
fn not_null<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// Whether a text in it holds what PostgreSQL cannot.
fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(map) => map
            .iter()
            .any(|(key, value)| key.contains('\0') || holds_nul(value)),
        _ => false,
    }
}

/// PostgreSQL writes a number of its JSON in full, and one near the end of what 64 bits can hold (1.8e308)
/// cannot be read again.
const MAX_NUMBER: f64 = 1e300;

/// Whether a number in it is too large to be kept and read again.
fn holds_huge(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_f64().is_some_and(|n| n.abs() > MAX_NUMBER),
        Value::Array(items) => items.iter().any(holds_huge),
        Value::Object(map) => map.values().any(holds_huge),
        _ => false,
    }
}

/// Gathers the mistakes of a body.
#[derive(Debug, Default)]
pub(super) struct Check {
    errors: Vec<FieldError>,
}

impl Check {
    /// Notes a mistake.
    pub(super) fn refuse(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.errors.push(FieldError::new(field, message));
    }

    /// Notes a text that is too long, or that PostgreSQL cannot hold.
    fn text(&mut self, field: &str, text: Option<&str>, max_chars: usize) {
        let Some(text) = text else { return };
        if text.chars().count() > max_chars {
            self.refuse(field, format!("must have at most {max_chars} characters"));
        }
        if text.contains('\0') {
            self.refuse(field, "must not hold the character U+0000");
        }
    }

    /// The texts that a new and a changed integration share.
    pub(super) fn names(&mut self, display_name: Option<&str>, description: Option<&str>) {
        self.text("display_name", display_name, MAX_NAME_CHARS);
        self.text("description", description, MAX_DESCRIPTION_CHARS);
    }

    /// The owner's word for the kind of service.
    pub(super) fn service_type(&mut self, service_type: Option<&str>) {
        self.text("service_type", service_type, MAX_SERVICE_TYPE_CHARS);
    }

    /// JSON that PostgreSQL can hold.
    pub(super) fn json(&mut self, field: &str, value: Option<&Map<String, Value>>) {
        let Some(map) = value else { return };
        let value = Value::Object(map.clone());
        if holds_nul(&value) {
            self.refuse(field, "must not hold the character U+0000");
        }
        if holds_huge(&value) {
            self.refuse(field, "must not hold numbers beyond 1e300");
        }
    }

    /// The scopes that were asked for.
    fn scopes(&mut self, field: &str, scopes: &[String]) {
        if scopes.len() > MAX_SCOPES {
            self.refuse(field, format!("must be at most {MAX_SCOPES} scopes"));
        }
        for (index, scope) in scopes.iter().enumerate() {
            self.text(&format!("{field}[{index}]"), Some(scope), MAX_NAME_CHARS);
        }
    }

    /// How to sync; the defaults where it says nothing.
    pub(super) fn sync_settings(&mut self, value: Option<&Value>) -> SyncSettings {
        let Some(value) = value else {
            return SyncSettings::default();
        };
        SyncSettings::parse(value).unwrap_or_else(|error| {
            self.refuse(error.field, error.message);
            SyncSettings::default()
        })
    }

    /// When the access token of a new integration ends.
    pub(super) fn expiry(
        &mut self,
        seconds: Option<i64>,
        now: DateTime<Utc>,
    ) -> Option<DateTime<Utc>> {
        let seconds = seconds?;
        if !(1..=MAX_EXPIRES_IN).contains(&seconds) {
            self.refuse(
                "token_expires_in",
                format!("must be 1 to {MAX_EXPIRES_IN} seconds"),
            );
            return None;
        }
        Some(now + TimeDelta::seconds(seconds))
    }

    /// The credentials of an integration of this kind.
    pub(super) fn credentials(
        &mut self,
        kind: CredentialType,
        mut fields: Map<String, Value>,
        client: Option<&OAuthConfig>,
        scopes: Option<&[String]>,
        expires_at: Option<DateTime<Utc>>,
    ) -> Option<Credentials> {
        if let Some(scopes) = scopes {
            self.scopes("scopes", scopes);
        }
        let credentials = match kind {
            CredentialType::Oauth2 => self
                .oauth2(&mut fields, client, scopes, expires_at)
                .map(Credentials::OAuth2),
            _ => self.secrets(kind, &mut fields),
        };
        for name in fields.keys() {
            self.refuse(
                format!("credentials.{name}"),
                "is not a field of such credentials",
            );
        }
        credentials
    }

    fn secrets(
        &mut self,
        kind: CredentialType,
        fields: &mut Map<String, Value>,
    ) -> Option<Credentials> {
        let mut values = std::collections::BTreeMap::new();
        for name in kind.fields() {
            match self.secret(fields, name) {
                Some(value) => {
                    values.insert((*name).to_owned(), value);
                }
                None => self.missing(name),
            }
        }
        (values.len() == kind.fields().len()).then_some(Credentials::Fields(values))
    }

    fn oauth2(
        &mut self,
        fields: &mut Map<String, Value>,
        client: Option<&OAuthConfig>,
        scopes: Option<&[String]>,
        expires_at: Option<DateTime<Utc>>,
    ) -> Option<OAuth2Credentials> {
        let refresh_token = self.secret(fields, "refresh_token");
        if refresh_token.is_none() {
            self.missing("refresh_token");
        }
        let access_token = self.secret(fields, "access_token");
        self.client(fields, client);
        let own_scopes = match fields.remove("scopes") {
            None | Some(Value::Null) => None,
            Some(value) => match serde_json::from_value::<Vec<String>>(value) {
                Ok(scopes) => Some(scopes),
                Err(_) => {
                    self.refuse("credentials.scopes", "must be a list of texts");
                    None
                }
            },
        };
        if let Some(own_scopes) = &own_scopes {
            self.scopes("credentials.scopes", own_scopes);
        }
        let scopes = scopes
            .map(<[String]>::to_vec)
            .or(own_scopes)
            .unwrap_or_default();
        Some(OAuth2Credentials {
            refresh_token: Some(refresh_token?),
            access_token_expires_at: access_token.as_ref().and(expires_at),
            access_token,
            scopes,
        })
    }

    /// The client that the tokens belong to, where it is given, must be the configured one: no
    /// other could refresh them.
    fn client(&mut self, fields: &mut Map<String, Value>, client: Option<&OAuthConfig>) {
        let configured_id = client.and_then(|client| client.client_id.as_deref());
        if let Some(id) = self.plain(fields, "client_id")
            && Some(id.as_str()) != configured_id
        {
            self.refuse(
                "credentials.client_id",
                "is not the configured client: only tokens issued to that one can be refreshed",
            );
        }
        if let Some(uri) = self.plain(fields, "token_uri") {
            let configured = client.map(|client| &client.token_url);
            if Url::parse(&uri).ok().as_ref() != configured {
                self.refuse(
                    "credentials.token_uri",
                    "is not the configured token endpoint",
                );
            }
        }
        if let Some(secret) = self.secret(fields, "client_secret") {
            let configured = client.and_then(|client| client.client_secret.as_ref());
            // Otherwise the time of the answer would tell how much of a guess is right.
            let same = configured.is_some_and(|configured| {
                let (ours, given) = (configured.expose_secret(), secret.expose_secret());
                bool::from(ours.as_bytes().ct_eq(given.as_bytes()))
            });
            if !same {
                self.refuse(
                    "credentials.client_secret",
                    "is not that of the configured client",
                );
            }
        }
    }

    fn missing(&mut self, name: &str) {
        let field = format!("credentials.{name}");
        if !self.errors.iter().any(|error| error.field == field) {
            self.refuse(field, "is required");
        }
    }

    fn secret(&mut self, fields: &mut Map<String, Value>, name: &str) -> Option<SecretString> {
        self.plain(fields, name).map(SecretString::from)
    }

    /// Takes a text that is not empty and fits into an HTTP header.
    fn plain(&mut self, fields: &mut Map<String, Value>, name: &str) -> Option<String> {
        match fields.remove(name)? {
            Value::Null => None,
            Value::String(text)
                if !text.is_empty()
                    && text.len() <= MAX_TOKEN_BYTES
                    && !text.chars().any(char::is_control) =>
            {
                Some(text)
            }
            _ => {
                self.refuse(
                    format!("credentials.{name}"),
                    format!(
                        "must be a text of 1 to {MAX_TOKEN_BYTES} bytes without control characters"
                    ),
                );
                None
            }
        }
    }

    /// Nothing may have been wrong.
    pub(super) fn finish(self) -> Result<(), ApiError> {
        if self.errors.is_empty() {
            Ok(())
        } else {
            Err(ApiError::Invalid(self.errors))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::providers;

    #[test]
    fn a_number_that_could_not_be_read_again_is_refused() {
        for (number, mistakes) in [(1e300, 0), (-1.797_693_134_862_315_7e308, 1), (1.1e300, 1)] {
            let mut check = Check::default();
            let config = json!({"a": [{"b": number}]});
            check.json("config", config.as_object());
            assert_eq!(check.errors.len(), mistakes, "{number}");
        }
    }

    fn client() -> OAuthConfig {
        OAuthConfig {
            provider: providers::of(ServiceName::Gmail),
            client_id: Some("our-client".to_owned()),
            client_secret: Some("our-secret".to_owned().into()),
            authorize_url: "https://accounts.google.com/o/oauth2/v2/auth"
                .parse()
                .unwrap(),
            token_url: "https://oauth2.googleapis.com/token".parse().unwrap(),
            revoke_url: None,
            api_url: "https://gmail.googleapis.com".parse().unwrap(),
        }
    }

    fn errors_of(kind: CredentialType, credentials: Value) -> Vec<String> {
        let Value::Object(fields) = credentials else {
            panic!("not an object")
        };
        let mut check = Check::default();
        check.credentials(kind, fields, Some(&client()), None, None);
        check.errors.into_iter().map(|error| error.field).collect()
    }

    #[test]
    fn credentials_of_the_configured_client_are_taken() {
        let given = json!({
            "refresh_token": "r",
            "access_token": "a",
            "client_id": "our-client",
            "client_secret": "our-secret",
            "token_uri": "https://oauth2.googleapis.com/token",
            "scopes": ["x"],
        });
        assert!(errors_of(CredentialType::Oauth2, given).is_empty());
        assert!(errors_of(CredentialType::Oauth2, json!({"refresh_token": "r"})).is_empty());
    }

    #[test]
    fn every_wrong_field_is_named() {
        let given = json!({
            "client_id": "another",
            "client_secret": "another",
            "token_uri": "https://attacker.example/token",
            "access_token": 5,
            "id_token": "x",
        });
        let mut fields = errors_of(CredentialType::Oauth2, given);
        fields.sort_unstable();
        assert_eq!(
            fields,
            [
                "credentials.access_token",
                "credentials.client_id",
                "credentials.client_secret",
                "credentials.id_token",
                "credentials.refresh_token",
                "credentials.token_uri",
            ]
        );
        assert_eq!(
            errors_of(
                CredentialType::BasicAuth,
                json!({"username": "u", "password": ""})
            ),
            ["credentials.password"]
        );
    }
}
