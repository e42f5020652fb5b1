//! The stand-in's paths: each handler takes its request apart and hands it to [`Shared::serve`].

use std::{collections::HashMap, sync::Arc};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, RawQuery, State},
    http::{HeaderMap, StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};

use super::{
    faults::Method,
    gmail_api::Call,
    google::{Shared, lock, text},
    grants::OAuthAnswer,
    wire::Answer,
};

/// Every path there is.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/gmail/v1/users/{user}/profile", get(get_profile))
        .route("/gmail/v1/users/{user}/messages", get(list_messages))
        .route("/gmail/v1/users/{user}/messages/{id}", get(get_message))
        .route(
            "/gmail/v1/users/{user}/messages/{id}/attachments/{attachment}",
            get(get_attachment),
        )
        .route("/gmail/v1/users/{user}/history", get(list_history))
        .route("/gmail/v1/users/{user}/labels", get(list_labels))
        .route("/o/oauth2/v2/auth", get(authorize).post(consent))
        .route("/token", post(token))
        .route("/revoke", post(revoke))
        .fallback(unknown_path)
        .with_state(shared)
}

/// Google's front answers paths that it does not know in HTML.
async fn unknown_path() -> Response {
    let page = "<!DOCTYPE html><html><title>Error 404 (Not Found)!!1</title><p>The requested URL was not found on this server.</html>";
    (StatusCode::NOT_FOUND, Html(page)).into_response()
}

async fn gmail(
    shared: Arc<Shared>,
    method: Method,
    path: (String, Option<String>, Option<String>),
    query: Option<String>,
    headers: HeaderMap,
) -> Response {
    let (user, id, attachment) = path;
    let pairs = url::form_urlencoded::parse(query.as_deref().unwrap_or_default().as_bytes());
    let call = Call {
        method,
        user,
        id,
        attachment,
        query: pairs.into_owned().collect(),
    };
    let id = call.id.clone();
    let answer = move |shared: &Shared| shared.gmail(&call, &headers);
    shared.serve(method, id, answer).await
}

async fn get_profile(
    State(shared): State<Arc<Shared>>,
    Path(user): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let path = (user, None, None);
    gmail(shared, Method::GetProfile, path, query, headers).await
}

async fn list_messages(
    State(shared): State<Arc<Shared>>,
    Path(user): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let path = (user, None, None);
    gmail(shared, Method::MessagesList, path, query, headers).await
}

async fn get_message(
    State(shared): State<Arc<Shared>>,
    Path((user, id)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let path = (user, Some(id), None);
    gmail(shared, Method::MessagesGet, path, query, headers).await
}

async fn get_attachment(
    State(shared): State<Arc<Shared>>,
    Path((user, id, attachment)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let path = (user, Some(id), Some(attachment));
    gmail(shared, Method::AttachmentsGet, path, query, headers).await
}

async fn list_history(
    State(shared): State<Arc<Shared>>,
    Path(user): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let path = (user, None, None);
    gmail(shared, Method::HistoryList, path, query, headers).await
}

async fn list_labels(
    State(shared): State<Arc<Shared>>,
    Path(user): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let path = (user, None, None);
    gmail(shared, Method::LabelsList, path, query, headers).await
}

async fn authorize(State(shared): State<Arc<Shared>>, RawQuery(query): RawQuery) -> Response {
    let answer = move |shared: &Shared| (shared.authorize(&query.unwrap_or_default()), 0);
    shared.serve(Method::Authorize, None, answer).await
}

/// The consent page's form goes to the address of the page.
async fn consent(
    State(shared): State<Arc<Shared>>,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> Response {
    let answer = move |shared: &Shared| {
        let form: Vec<_> = form_pairs(&body).collect();
        (shared.consent(&query.unwrap_or_default(), &form), 0)
    };
    shared.serve(Method::Consent, None, answer).await
}

async fn token(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let answer = move |shared: &Shared| {
        let authorization = text(&headers, header::AUTHORIZATION);
        let form = form(&body);
        let now = shared.clock.now();
        let mut grants = lock(&shared.grants);
        oauth(grants.token(&shared.options, authorization, &form, now))
    };
    shared.serve(Method::Token, None, answer).await
}

/// The token stands in the form, or in the query as Google's page shows it too.
async fn revoke(
    State(shared): State<Arc<Shared>>,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> Response {
    let answer = move |shared: &Shared| {
        let mut form = form(&body);
        for (name, value) in form_pairs(query.as_deref().unwrap_or_default().as_bytes()) {
            form.entry(name).or_insert(value);
        }
        oauth(lock(&shared.grants).revoke_token(form.get("token")))
    };
    shared.serve(Method::Revoke, None, answer).await
}

fn oauth(answer: OAuthAnswer) -> (Answer, u32) {
    (Answer::json(answer.code, answer.body.to_string()), 0)
}

fn form(body: &[u8]) -> HashMap<String, String> {
    form_pairs(body).collect()
}

fn form_pairs(bytes: &[u8]) -> impl Iterator<Item = (String, String)> {
    url::form_urlencoded::parse(bytes).into_owned()
}
