//! `/integrations/{service}/oauth`: the two ends of an OAuth flow, for programs with a key and for
//! browsers. What is decided is decided in [`crate::connect`].

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{FromRequest, FromRequestParts, Path, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    caller::Caller,
    error::ApiError,
    extract::{Body, read_body},
    integrations::Shown,
    openapi::HTML,
    pages::{Confirm, Message, Page},
    site::Site,
    to_the_end,
};
use crate::{
    app::App,
    connect::{
        self, Answer, Bearer, ConnectError, Connected, Decided, Decision, Denial, Failure, Flow,
        Start, Taken,
    },
    db::{integration, oauth_session::OAuthSessionId},
    domain::{EntityId, ServiceName, time},
    oauth::authorization,
};

/// A form of ours is shorter.
const MAX_FORM_BYTES: usize = 4096;
/// A browser keeps its cookie as long as a flow may take: consenting and confirming.
const COOKIE_SECONDS: u32 = 1200;

/// The service in the path. A text that names none names nothing.
pub(super) struct PathService(ServiceName);

impl<S: Send + Sync> FromRequestParts<S> for PathService {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        state: &S,
    ) -> Result<Self, ApiError> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::NotFound)?;
        text.parse().map(Self).map_err(|_| ApiError::NotFound)
    }
}

/// Whose account is to be connected.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OAuthStart)]
pub(super) struct StartBody {
    /// Its owner.
    entity_id: EntityId,
    /// Where the browser goes in the end, with `integration_id` or `error` added to the query. Its
    /// origin must be one that the operator allows.
    return_to: Option<String>,
}

/// A flow that has begun.
#[derive(Serialize, ToSchema)]
#[schema(as = OAuthBegun)]
pub(super) struct Begun {
    /// Where to send the person's browser.
    authorization_url: String,
    /// What binds the answer to the flow.
    state: String,
    /// Until when the flow may be finished.
    #[serde(serialize_with = "time::serialize")]
    expires_at: DateTime<Utc>,
}

/// Begin an OAuth flow
///
/// Answers the address to which the person's browser is sent to consent. A page of this server that
/// begins the flow gets a cookie, and the same browser then finishes it without being asked again.
#[utoipa::path(post, path = "/integrations/{service}/oauth/start", operation_id = "start_oauth",
    tag = "OAuth",
    params(("service" = ServiceName, Path, description = "The service.")),
    request_body = StartBody,
    responses(
        (status = 200, description = "The flow.", body = Begun),
        (status = 409, description = "client_not_configured")))]
pub(super) async fn start(
    State(app): State<Arc<App>>,
    Extension(site): Extension<Site>,
    caller: Caller,
    PathService(service): PathService,
    headers: HeaderMap,
    Body(body): Body<StartBody>,
) -> Result<Response, ApiError> {
    caller.require_entity(body.entity_id)?;
    let return_to = match &body.return_to {
        Some(text) => Some(
            connect::allowed_return_to(text, &app.return_to)
                .map_err(|error| ApiError::field("return_to", error.to_string()))?,
        ),
        None => None,
    };
    let browser = site
        .is_asked_by_own_page(&headers)
        .then(|| cookie(&headers, &site).unwrap_or_else(authorization::random_text));
    let start = Start {
        entity_id: body.entity_id,
        created_by: caller.name,
        browser: browser.clone(),
        redirect_uri: site.redirect_uri(service),
        return_to,
    };
    let starting = Arc::clone(&app);
    let started = to_the_end(&app, async move {
        Ok(flow(&starting, service)?.start(start).await?)
    })
    .await?;
    let begun = Begun {
        authorization_url: started.authorization_url.into(),
        state: started.state,
        expires_at: started.expires_at,
    };
    let response = Json(begun).into_response();
    Ok(match browser {
        Some(browser) => with_cookie(response, &site, &browser)?,
        None => response,
    })
}

/// Finish an OAuth flow in a browser
///
/// The service sends the person's browser here. Where this browser began the flow, the account is
/// connected; where a key did, a page shows account and entity and asks to confirm. Without
/// `return_to` a page says how it ended. Parameters that are not known are ignored.
#[utoipa::path(get, path = "/integrations/{service}/oauth/callback", operation_id = "oauth_callback",
    tag = "OAuth", security(()),
    params(
        ("service" = ServiceName, Path, description = "The service."),
        ("state" = Option<String>, Query, description = "What the flow began with."),
        ("code" = Option<String>, Query, description = "The authorization code."),
        ("iss" = Option<String>, Query, description = "Who answers (RFC 9207)."),
        ("error" = Option<String>, Query, description = "Why there is no code."),
        ("error_description" = Option<String>, Query, description = "The same, for people.")),
    responses(
        (status = 200, description = "A page: connected, or to be confirmed.", body = String,
         content_type = HTML),
        (status = 303, description = "To `return_to`.",
         headers(("Location" = String, description = "`return_to` and how it ended."))),
        (status = 409, description = "state_used, state_expired, other_browser, access_denied, \
                                      no_refresh_token, scopes_missing, other_account, \
                                      integration_ending, \
                                      client_refused, account_unreadable, \
                                      client_not_configured, conflict")),
    extensions(("x-pages" = json!(true))))]
pub(super) async fn callback(
    State(app): State<Arc<App>>,
    Extension(site): Extension<Site>,
    method: Method,
    service: Result<PathService, ApiError>,
    request: Request,
) -> Response {
    // A look at the head must not use up what the answer is good for.
    if method == Method::HEAD {
        return ApiError::MethodNotAllowed.into_response();
    }
    let service = match service {
        Ok(PathService(service)) => service,
        Err(error) => return Message::of_error(&error).into_response(),
    };
    let answer = match parse(request.uri().query().unwrap_or_default()) {
        Ok(answer) => answer,
        Err(error) => return Message::of_error(&error).into_response(),
    };
    let browser = cookie(request.headers(), &site).unwrap_or_else(authorization::random_text);
    let (finishing, brought_by) = (Arc::clone(&app), browser.clone());
    let taken = to_the_end(&app, async move {
        Ok(match flow(&finishing, service) {
            Ok(flow) => flow.finish(answer, Bearer::Browser(&brought_by)).await,
            Err(error) => Err(error.into()),
        })
    })
    .await;
    let response = match taken {
        Ok(Ok(Taken::Connected(connected))) => show_connected(&app, service, connected),
        Ok(Ok(Taken::Confirm(confirmation))) => {
            Confirm::new(service.title(), site.redirect_uri(service), confirmation).into_response()
        }
        Ok(Err(failure)) => show_failure(failure),
        Err(error) => Message::of_error(&error).into_response(),
    };
    with_cookie(response, &site, &browser).unwrap_or_else(IntoResponse::into_response)
}

/// The query of a callback. Each parameter may stand there once (RFC 6749, section 3.1); those that
/// are not known are ignored.
fn parse(query: &str) -> Result<Answer, ApiError> {
    let take = |name: &str| {
        let mut values = url::form_urlencoded::parse(query.as_bytes())
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned());
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(ApiError::field(name, "is given twice")),
            (value, None) => Ok(value.filter(|value| !value.is_empty())),
        }
    };
    let (state, code, error) = (take("state")?, take("code")?, take("error")?);
    let (iss, description) = (take("iss")?, take("error_description")?);
    let state = state
        .filter(|state| authorization::is_random_text(state))
        .ok_or(ConnectError::UnknownState)?;
    let code = match (code, error) {
        (_, Some(error)) => Err(Denial {
            error,
            description: description.unwrap_or_default(),
        }),
        (Some(code), None) => Ok(SecretString::from(code)),
        (None, None) => return Err(ApiError::field("code", "is missing: start again")),
    };
    Ok(Answer { state, code, iss })
}

/// What the authorization server answered, from a program that took it itself.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OAuthAnswer)]
pub(super) struct AnswerBody {
    /// What the flow began with.
    state: String,
    /// The authorization code.
    code: String,
    /// Who answers (RFC 9207).
    iss: Option<String>,
}

/// Finish an OAuth flow with a key
///
/// For a program that was sent the answer of the service itself: `state` and `code` with a key of the
/// entity connect the account at once. 201 for a new integration, 200 for one that has its account
/// again. The page that asks a person to confirm sends its form here too, without a key.
#[utoipa::path(post, path = "/integrations/{service}/oauth/callback", operation_id = "finish_oauth",
    tag = "OAuth", security(("key" = []), ()),
    params(("service" = ServiceName, Path, description = "The service.")),
    request_body(content(
        (AnswerBody = "application/json"),
        (DecisionForm = "application/x-www-form-urlencoded"))),
    responses(
        (status = 200, description = "The integration, or a page.", content(
            (Shown = "application/json"),
            (String = HTML))),
        (status = 201, description = "The new integration.", body = Shown),
        (status = 303, description = "To `return_to`, for a form.",
         headers(("Location" = String, description = "`return_to` and how it ended."))),
        (status = 403, description = "forbidden"),
        (status = 409, description = "state_used, state_expired, other_browser, access_denied, \
                                      no_refresh_token, scopes_missing, other_account, \
                                      integration_ending, \
                                      client_refused, account_unreadable, \
                                      client_not_configured, conflict")),
    extensions(("x-pages" = json!(true))))]
pub(super) async fn answer(
    State(app): State<Arc<App>>,
    Extension(site): Extension<Site>,
    service: Result<PathService, ApiError>,
    request: Request,
) -> Response {
    if is_form(request.headers()) {
        let decided = decide(&app, &site, service, request).await;
        return decided.unwrap_or_else(|error| Message::of_error(&error).into_response());
    }
    match finish(app, service, request).await {
        Ok(response) => response.into_response(),
        Err(error) => error.into_response(),
    }
}

pub(super) fn is_form(headers: &HeaderMap) -> bool {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    value.is_some_and(|value| value.starts_with("application/x-www-form-urlencoded"))
}

async fn finish(
    app: Arc<App>,
    service: Result<PathService, ApiError>,
    request: Request,
) -> Result<(StatusCode, Json<Shown>), ApiError> {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, &app).await?;
    let PathService(service) = service?;
    let request = Request::from_parts(parts, body);
    let Body(body) = Body::<AnswerBody>::from_request(request, &app).await?;
    let answer = Answer {
        state: body.state,
        code: Ok(body.code.into()),
        iss: body.iss,
    };
    let (finishing, scope) = (Arc::clone(&app), caller.scope);
    let connected = to_the_end(&app, async move {
        let taken = flow(&finishing, service)?
            .finish(answer, Bearer::Key(scope))
            .await
            .map_err(|failure| failure.error)?;
        match taken {
            Taken::Connected(connected) => Ok(connected),
            Taken::Confirm(_) => Err(ApiError::Internal(
                "a flow with a key waits for a browser".to_owned(),
            )),
        }
    })
    .await?;
    app.wake.notify_one();
    let status = if connected.is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let found = integration::find(&app.engine.db, scope, connected.integration_id).await?;
    Ok((status, Json(found.into())))
}

async fn decide(
    app: &Arc<App>,
    site: &Site,
    service: Result<PathService, ApiError>,
    request: Request,
) -> Result<Response, ApiError> {
    let PathService(service) = service?;
    if !site.is_own_form(request.headers()) {
        return Err(ApiError::Forbidden("this form was sent by another site"));
    }
    let browser = cookie(request.headers(), site).ok_or(ConnectError::OtherBrowser)?;
    let (parts, body) = request.into_parts();
    let form = read_body(app, &parts, body, MAX_FORM_BYTES).await?;
    let form = DecisionForm::parse(&form.bytes)?;
    let deciding = Arc::clone(app);
    let decided = to_the_end(app, async move {
        Ok(match flow(&deciding, service) {
            Ok(flow) => {
                flow.decide(form.confirmation, &browser, form.decision)
                    .await
            }
            Err(error) => Err(error.into()),
        })
    })
    .await?;
    Ok(match decided {
        Ok(Decided::Connected(connected)) => show_connected(app, service, connected),
        Ok(Decided::Cancelled {
            return_to,
            is_revoked,
        }) => match return_to {
            Some(return_to) => redirect(&return_to, &[("error", "access_denied")]),
            None => Message::cancelled(service.title(), is_revoked).into_response(),
        },
        Err(failure) => show_failure(failure),
    })
}

/// The form of the page that asks for a confirmation.
#[derive(ToSchema)]
pub(super) struct DecisionForm {
    /// What is to be confirmed.
    confirmation: OAuthSessionId,
    /// Whether the account is to be connected.
    decision: Decision,
}

impl DecisionForm {
    fn parse(form: &[u8]) -> Result<Self, ApiError> {
        let (mut confirmation, mut decision) = (None, None);
        for (name, value) in url::form_urlencoded::parse(form) {
            match (name.as_ref(), value.as_ref()) {
                ("confirmation", value) => confirmation = value.parse().ok(),
                ("decision", "connect") => decision = Some(Decision::Connect),
                ("decision", "cancel") => decision = Some(Decision::Cancel),
                _ => {}
            }
        }
        Ok(Self {
            confirmation: confirmation.ok_or(ConnectError::UnknownState)?,
            decision: decision
                .ok_or_else(|| ApiError::field("decision", "must be connect or cancel"))?,
        })
    }
}

fn flow(app: &App, service: ServiceName) -> Result<Flow<'_>, ConnectError> {
    Flow::new(
        &app.engine,
        &app.integrations,
        app.clients.get(&service),
        service,
    )
}

fn show_connected(app: &App, service: ServiceName, connected: Connected) -> Response {
    app.wake.notify_one();
    match &connected.return_to {
        Some(return_to) => {
            let id = connected.integration_id.to_string();
            redirect(return_to, &[("integration_id", &id)])
        }
        None => Message::connected(service.title(), &connected).into_response(),
    }
}

/// Says what went wrong. Who said no at the service has nothing to read here and goes straight back.
fn show_failure(failure: Failure) -> Response {
    let Failure { error, return_to } = failure;
    if let (ConnectError::Denied { error, .. }, Some(return_to)) = (&error, &return_to)
        && error == "access_denied"
    {
        return redirect(return_to, &[("error", error)]);
    }
    let error = ApiError::from(error);
    let back = return_to.map(|return_to| with_parameters(&return_to, &[("error", error.code())]));
    Message::of_error(&error)
        .with_way_back(back)
        .into_response()
}

fn redirect(return_to: &str, parameters: &[(&str, &str)]) -> Response {
    let location = with_parameters(return_to, parameters);
    match HeaderValue::from_str(&location) {
        Ok(location) => (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response(),
        Err(error) => ApiError::Internal(error.to_string()).into_response(),
    }
}

/// `return_to` was checked when the flow began.
fn with_parameters(return_to: &str, parameters: &[(&str, &str)]) -> String {
    match url::Url::parse(return_to) {
        Ok(mut url) => {
            url.query_pairs_mut().extend_pairs(parameters);
            url.into()
        }
        Err(_) => return_to.to_owned(),
    }
}

/// The cookie that names this browser, if it has one of ours.
fn cookie(headers: &HeaderMap, site: &Site) -> Option<String> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, value)| *name == site.cookie_name() && authorization::is_random_text(value))
        .map(|(_, value)| value.to_owned())
}

fn with_cookie(mut response: Response, site: &Site, browser: &str) -> Result<Response, ApiError> {
    let secure = if site.is_https() { "; Secure" } else { "" };
    let text = format!(
        "{}={browser}; Path=/; Max-Age={COOKIE_SECONDS}; HttpOnly; SameSite=Lax{secure}",
        site.cookie_name()
    );
    let mut value =
        HeaderValue::from_str(&text).map_err(|error| ApiError::Internal(error.to_string()))?;
    value.set_sensitive(true);
    response.headers_mut().append(header::SET_COOKIE, value);
    Ok(response)
}
