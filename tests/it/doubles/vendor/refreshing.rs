//! What each vendor answers to a refresh.

use axum::response::Response;
use nucleus::domain::ServiceName;
use serde_json::{Value, json};

use super::{Grant, Inner, Vendor, granted, refuse};

/// The answer to a refresh, as the vendor writes it.
pub(super) fn refreshed(vendor: &Vendor, inner: &mut Inner, given: String, grant: Grant) -> Value {
    let mut answer = granted(vendor, inner, &grant);
    if vendor.service == ServiceName::Slack {
        // What stands in `authed_user` at first comes at the top here.
        let mut user = answer["authed_user"].take();
        user["ok"] = json!(true);
        return user;
    }
    if vendor.rotates() {
        return answer;
    }
    let next = answer["refresh_token"].take();
    inner.grants.remove(next.as_str().unwrap_or_default());
    let fields = answer.as_object_mut().unwrap();
    if vendor.service == ServiceName::Linkedin {
        fields["refresh_token"] = json!(given);
        fields["refresh_token_expires_in"] = json!(31_000_000);
    } else {
        fields.remove("refresh_token");
        fields.remove("refresh_token_expires_in");
    }
    inner.grants.insert(given, grant);
    answer
}

/// What each vendor says of a refresh token that is not good.
pub(super) fn refuse_refresh(vendor: &Vendor) -> Response {
    let (error, description) = match vendor.service {
        ServiceName::Github => (
            "bad_refresh_token",
            "The refresh token passed is incorrect or expired.",
        ),
        ServiceName::Slack => ("invalid_refresh_token", ""),
        ServiceName::Twitter => ("invalid_request", "Value passed for the token was invalid."),
        ServiceName::Spotify => ("invalid_grant", "Refresh token revoked"),
        _ => ("invalid_grant", "Token has been expired or revoked."),
    };
    refuse(vendor, error, description)
}
