//! What the codes of problems mean, for the document. Which one is meant is picked in `error.rs`.

/// Every code with its status and what it means, by status.
pub(super) const CODES: &[(u16, &str, &str)] = &[
    (400, "invalid_json", "The body is not JSON."),
    (
        400,
        "invalid_cursor",
        "The cursor was not given by this list. Leave it out to start over.",
    ),
    (
        401,
        "unauthorized",
        "There is no valid key in one `Authorization: Bearer` header.",
    ),
    (
        403,
        "forbidden",
        "The caller may not do this; most often it needs the operator's key.",
    ),
    (
        403,
        "read_only_key",
        "The key may only read. Use one of scope `write`.",
    ),
    (
        404,
        "not_found",
        "There is no such thing, or it belongs to another entity.",
    ),
    (
        405,
        "method_not_allowed",
        "The path exists, but not with this method.",
    ),
    (408, "timeout", "The body did not arrive in time."),
    (
        409,
        "conflict",
        "Somebody else changed this at the same time. Read it again.",
    ),
    (
        409,
        "integration_exists",
        "The entity has this service connected. Change or remove that integration.",
    ),
    (
        409,
        "integration_ended",
        "The integration is expired or revoked. Give it new credentials.",
    ),
    (
        409,
        "integration_ending",
        "The access to the account is being ended. Try again in some minutes.",
    ),
    (
        409,
        "integration_inactive",
        "The integration is switched off. Set its status to `active` first.",
    ),
    (
        409,
        "integration_expired",
        "The consent ran out. Connect the account again first.",
    ),
    (
        409,
        "integration_revoked",
        "The consent was withdrawn. Connect the account again first.",
    ),
    (
        409,
        "no_connector",
        "The service can be connected, but not be synced or asked yet.",
    ),
    (409, "run_finished", "The run is over."),
    (
        409,
        "client_not_configured",
        "The operator has configured no OAuth client of the service.",
    ),
    (
        409,
        "state_used",
        "The flow has had its answer. Start again.",
    ),
    (
        409,
        "state_expired",
        "The time for the flow is over. Start again.",
    ),
    (
        409,
        "other_browser",
        "The flow was begun in another browser.",
    ),
    (
        409,
        "access_denied",
        "The person, or the service, did not grant access.",
    ),
    (
        409,
        "no_refresh_token",
        "The service gave no lasting access. Remove nucleus from the account's connected apps first.",
    ),
    (
        409,
        "scopes_missing",
        "Not everything that is needed was allowed. `detail` names what is missing.",
    ),
    (
        409,
        "other_account",
        "Another account of the service is connected here. `detail` names both.",
    ),
    (
        409,
        "client_refused",
        "The service does not take the operator's OAuth client.",
    ),
    (
        409,
        "account_unreadable",
        "The service does not say whose the account is.",
    ),
    (
        409,
        "idempotency_in_flight",
        "The request with this `Idempotency-Key` is still being carried out. Repeat it later.",
    ),
    (
        410,
        "cursor_expired",
        "The events after this cursor are past retention. Read the records instead, and start over \
         without a cursor.",
    ),
    (
        413,
        "body_too_large",
        "The body is larger than this server takes.",
    ),
    (
        415,
        "unsupported_media_type",
        "The body is not sent as `Content-Type: application/json`.",
    ),
    (
        422,
        "invalid_fields",
        "Fields or parameters cannot be taken. `errors` names each, with what is right.",
    ),
    (
        429,
        "rate_limited",
        "Too many requests were sent with this key, or from this address. Wait as long as `Retry-After` \
         says.",
    ),
    (
        429,
        "too_many",
        "Too many of these are open. Try again later.",
    ),
    (
        431,
        "headers_too_large",
        "The request's header fields are too many or too long.",
    ),
    (
        500,
        "internal",
        "This is a defect of nucleus or of its store.",
    ),
    (
        503,
        "unavailable",
        "A part of nucleus does not answer. Try again later.",
    ),
];
