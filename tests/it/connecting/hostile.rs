//! What says whose an account is may be anything that answers at its address. It is not trusted.

use axum::{
    Router,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};

use crate::{
    doubles::{serve, small_mailbox},
    harness::Setting,
};

/// A large body, a deep one, a way elsewhere, and what is no account.
fn answer(kind: &str) -> Response {
    match kind {
        "large" => "x".repeat(10 * 1024 * 1024).into_response(),
        "deep" => "[".repeat(60_000).into_response(),
        "html" => "<html>a proxy</html>".into_response(),
        "nobody" => json!({"login": 7, "id": []}).to_string().into_response(),
        "error" => (StatusCode::BAD_GATEWAY, "<html></html>").into_response(),
        _ => {
            let location = [(header::LOCATION, "/elsewhere")];
            (StatusCode::TEMPORARY_REDIRECT, location).into_response()
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_cannot_be_one_leaves_a_token_untested() {
    for (kind, says) in [
        ("large", "larger than 65536 bytes"),
        ("deep", "no JSON"),
        ("html", "no JSON"),
        ("nobody", "does not name the account"),
        ("error", "answered 502"),
        ("redirect", "answered 307"),
    ] {
        let elsewhere = get(|| async { json!({"login": "ada", "id": 1}).to_string() });
        let router = Router::new()
            .route("/user", get(move || async move { answer(kind) }))
            .route("/elsewhere", elsewhere);
        let app = Setting::new(small_mailbox(0))
            .variable("NUCLEUS_SERVICES__GITHUB__API_URL", serve(router).await)
            .start()
            .await;
        let entity = app.entity().await;
        let body = json!({
            "entity_id": entity, "service_name": "github", "credential_type": "bearer_token",
            "credentials": {"token": "ghp_canary"},
        });
        let made = app.post("/integrations", body).await;
        assert_eq!(
            (&made["status"], &made["is_tested"], &made["account"]),
            (&json!("active"), &json!(false), &Value::Null),
            "{kind}: {made}"
        );
        let message = made["sync_error_message"].as_str().unwrap();
        assert!(message.contains(says), "{kind}: {message}");
    }
}
