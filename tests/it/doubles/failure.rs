//! How an authorization server of the tests fails, to the byte: requests are read from the connection and
//! replies are written to it by hand, so that anything can come over it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// One way to fail, or to answer oddly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    // What passes.
    InternalError,
    BadGatewayPage,
    UnavailableThatSaysInvalidGrant,
    GatewayTimeout,
    TooManyThatSaysInvalidGrant,
    RequestTimeoutPage,
    TemporarilyUnavailable,
    ServerError,
    RefusalThatIsAPage,
    NotFoundOfAProxy,
    SignInPage,
    EmptyBody,
    NoContent,
    TruncatedJson,
    DeepJson,
    HugeBody,
    NeverAnswers,
    Trickles,
    Redirects,
    RedirectsThePost,
    ResetsBefore,
    ClosesInTheBody,
    NoAccessToken,
    EmptyAccessToken,
    NullAccessToken,
    AccessTokenIsANumber,
    AccessTokenWithALineBreak,
    JsonList,
    BrokenUtf8,
    // What passes, though the refresh token is used up.
    ResetsAfter,
    TruncatesAfter,
    LosesTheAccessTokenAfter,
    // What a person has to mend.
    InvalidGrant,
    InvalidGrantAs401,
    SessionPolicy,
    InvalidGrantWithNulls,
    InvalidGrantThatQuotes,
    // What the operator has to mend.
    InvalidClient,
    UnauthorizedClient,
    InvalidScope,
    InvalidRequest,
    UnsupportedGrantType,
    // What is odd, and good enough.
    ExpiresInText,
    ExpiresInFraction,
    ExpiresInAbsent,
    ExpiresInNull,
    ExpiresInNegative,
    ExpiresInNonsense,
    ExpiresInCenturies,
    WrongContentType,
    NoRefreshToken,
    EmptyRefreshToken,
}

impl Failure {
    /// What passes by itself, and leaves the refresh token good.
    pub const PASSING: [Self; 29] = [
        Self::InternalError,
        Self::BadGatewayPage,
        Self::UnavailableThatSaysInvalidGrant,
        Self::GatewayTimeout,
        Self::TooManyThatSaysInvalidGrant,
        Self::RequestTimeoutPage,
        Self::TemporarilyUnavailable,
        Self::ServerError,
        Self::RefusalThatIsAPage,
        Self::NotFoundOfAProxy,
        Self::SignInPage,
        Self::EmptyBody,
        Self::NoContent,
        Self::TruncatedJson,
        Self::DeepJson,
        Self::HugeBody,
        Self::NeverAnswers,
        Self::Trickles,
        Self::Redirects,
        Self::RedirectsThePost,
        Self::ResetsBefore,
        Self::ClosesInTheBody,
        Self::NoAccessToken,
        Self::EmptyAccessToken,
        Self::NullAccessToken,
        Self::AccessTokenIsANumber,
        Self::AccessTokenWithALineBreak,
        Self::JsonList,
        Self::BrokenUtf8,
    ];

    /// What answers oddly, and well.
    pub const ODD: [Self; 10] = [
        Self::ExpiresInText,
        Self::ExpiresInFraction,
        Self::ExpiresInAbsent,
        Self::ExpiresInNull,
        Self::ExpiresInNegative,
        Self::ExpiresInNonsense,
        Self::ExpiresInCenturies,
        Self::WrongContentType,
        Self::NoRefreshToken,
        Self::EmptyRefreshToken,
    ];

    /// What the operator has to mend.
    pub const OURS: [Self; 5] = [
        Self::InvalidClient,
        Self::UnauthorizedClient,
        Self::InvalidScope,
        Self::InvalidRequest,
        Self::UnsupportedGrantType,
    ];

    /// Whether what was asked for is done before the answer fails.
    pub fn takes_effect(self) -> bool {
        Self::ODD.contains(&self)
            || matches!(
                self,
                Self::ResetsAfter | Self::TruncatesAfter | Self::LosesTheAccessTokenAfter
            )
    }

    /// The reply in place of `good`, which is null where nothing was done, to a request that sent this token.
    pub fn reply(self, mut good: Value, token: &str) -> Reply {
        const PAGE: &str = "<!DOCTYPE html><title>Sign in to the network</title><p>Please wait.";
        let page = |status| Reply::bytes(status, "text/html", PAGE.into());
        let error = |status, error: &str| Reply::json(status, &json!({"error": error}));
        let text = |body: &str| Reply::bytes(200, "application/json", body.into());
        let never_used =
            json!({"access_token": "at-of-an-answer-that-is-none", "expires_in": 3600});
        let whole = |value: &Value| Reply::json(200, value);
        let mut with = |name: &str, value: Value| {
            good[name] = value;
            Reply::json(200, &good)
        };
        match self {
            Self::InternalError => error(500, "internal_failure"),
            Self::BadGatewayPage => page(502),
            Self::UnavailableThatSaysInvalidGrant => error(503, "invalid_grant"),
            Self::GatewayTimeout => page(504),
            Self::TooManyThatSaysInvalidGrant => error(429, "invalid_grant"),
            Self::RequestTimeoutPage => page(408),
            Self::TemporarilyUnavailable => error(400, "temporarily_unavailable"),
            Self::ServerError => error(400, "server_error"),
            Self::RefusalThatIsAPage => page(400),
            Self::NotFoundOfAProxy => Reply::json(404, &json!({"message": "no route"})),
            Self::SignInPage => page(200),
            Self::EmptyBody => text(""),
            Self::NoContent => Reply::bytes(204, "application/json", Vec::new()),
            Self::TruncatedJson => text(r#"{"access_token": "at-of-an-answer-th"#),
            Self::DeepJson => text(&"[".repeat(20_000)),
            Self::HugeBody => Reply::bytes(200, "application/json", vec![b' '; 10_000_000]),
            Self::NeverAnswers => whole(&never_used).ending(Ending::Never),
            Self::Trickles => whole(&never_used).ending(Ending::Trickle),
            Self::Redirects => Reply::redirect(302, "/elsewhere"),
            Self::RedirectsThePost => Reply::redirect(307, "/elsewhere"),
            Self::ResetsBefore | Self::ResetsAfter => whole(&never_used).ending(Ending::Reset),
            Self::ClosesInTheBody => whole(&never_used).ending(Ending::Short),
            Self::NoAccessToken => whole(&json!({"token_type": "Bearer"})),
            Self::EmptyAccessToken => whole(&json!({"access_token": ""})),
            Self::NullAccessToken => whole(&json!({"access_token": null})),
            Self::AccessTokenIsANumber => whole(&json!({"access_token": 17})),
            Self::AccessTokenWithALineBreak => whole(&json!({"access_token": "at-\r\nX-Evil: 1"})),
            Self::JsonList => whole(&json!(["at-in-a-list"])),
            Self::BrokenUtf8 => Reply::bytes(
                200,
                "application/json",
                b"{\"access_token\": \"at-\xff\xfe\"}".to_vec(),
            ),
            Self::TruncatesAfter => text(r#"{"access_token": "at-of-an-answer-th"#),
            Self::LosesTheAccessTokenAfter => with("access_token", Value::Null),
            Self::InvalidGrant => error(400, "invalid_grant"),
            Self::InvalidGrantAs401 => error(401, "invalid_grant"),
            Self::SessionPolicy => Reply::json(
                400,
                &json!({"error": "invalid_grant", "error_subtype": "invalid_rapt"}),
            ),
            Self::InvalidGrantWithNulls => Reply::json(
                400,
                &json!({"error": "invalid_grant", "error_description": null, "code": 400}),
            ),
            Self::InvalidGrantThatQuotes => Reply::json(
                400,
                &json!({
                    "error": "invalid_grant",
                    "error_description": format!("\0{token}\r\n{}", "x".repeat(60_000)),
                }),
            ),
            Self::InvalidClient => error(401, "invalid_client"),
            Self::UnauthorizedClient => error(400, "unauthorized_client"),
            Self::InvalidScope => error(400, "invalid_scope"),
            Self::InvalidRequest => error(400, "invalid_request"),
            Self::UnsupportedGrantType => error(400, "unsupported_grant_type"),
            Self::ExpiresInText => with("expires_in", json!("3600")),
            Self::ExpiresInFraction => with("expires_in", json!(3599.5)),
            Self::ExpiresInAbsent => {
                good.as_object_mut().unwrap().remove("expires_in");
                whole(&good)
            }
            Self::ExpiresInNull => with("expires_in", Value::Null),
            Self::ExpiresInNegative => with("expires_in", json!(-1)),
            Self::ExpiresInNonsense => with("expires_in", json!({"seconds": 1})),
            Self::ExpiresInCenturies => with("expires_in", json!(u64::MAX)),
            Self::WrongContentType => Reply::bytes(200, "text/html", good.to_string().into_bytes()),
            Self::NoRefreshToken => with("refresh_token", Value::Null),
            Self::EmptyRefreshToken => with("refresh_token", json!("")),
        }
    }
}

/// How a reply ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// As announced.
    Whole,
    /// In the middle of the body.
    Short,
    /// Before it begins, with a reset.
    Reset,
    /// A byte a second.
    Trickle,
    /// It does not come.
    Never,
}

/// A reply before it is sent.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    content_type: &'static str,
    location: Option<String>,
    body: Vec<u8>,
    ending: Ending,
}

impl Reply {
    pub fn bytes(status: u16, content_type: &'static str, body: Vec<u8>) -> Self {
        Self {
            status,
            content_type,
            location: None,
            body,
            ending: Ending::Whole,
        }
    }

    pub fn json(status: u16, body: &Value) -> Self {
        Self::bytes(status, "application/json", body.to_string().into_bytes())
    }

    pub fn redirect(status: u16, location: &str) -> Self {
        Self {
            location: Some(location.to_owned()),
            ..Self::bytes(status, "text/plain", Vec::new())
        }
    }

    /// The JSON in it.
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    fn ending(mut self, ending: Ending) -> Self {
        self.ending = ending;
        if matches!(ending, Ending::Reset | Ending::Never) {
            self.status = 0;
        }
        self
    }

    /// Sends it, as far as the other side listens.
    pub async fn send(self, mut stream: TcpStream) {
        let mut head = format!(
            "HTTP/1.1 {} -\r\ncontent-type: {}\r\nconnection: close\r\n",
            self.status, self.content_type
        );
        if self.status != 204 {
            head += &format!("content-length: {}\r\n", self.body.len());
        }
        if let Some(location) = &self.location {
            head += &format!("location: {location}\r\n");
        }
        head += "\r\n";
        let half = &self.body[..self.body.len() / 2];
        let _whoever_asked_may_be_gone = match self.ending {
            Ending::Reset => stream.set_zero_linger(),
            Ending::Never => std::future::pending().await,
            Ending::Whole => {
                let sent = async {
                    stream.write_all(head.as_bytes()).await?;
                    stream.write_all(&self.body).await?;
                    stream.shutdown().await
                };
                sent.await
            }
            Ending::Short => {
                let sent = async {
                    stream.write_all(head.as_bytes()).await?;
                    stream.write_all(half).await?;
                    stream.shutdown().await
                };
                sent.await
            }
            Ending::Trickle => {
                let sent = async {
                    stream.write_all(head.as_bytes()).await?;
                    for byte in self.body.chunks(1) {
                        stream.write_all(byte).await?;
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                    Ok(())
                };
                sent.await
            }
        };
    }
}

/// A request.
#[derive(Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    form: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// Reads one; `None` where the connection ends first.
    pub async fn read(stream: &mut TcpStream) -> Option<Self> {
        let mut bytes = Vec::new();
        let end_of_head = loop {
            if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break at;
            }
            if stream.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        };
        let mut body = bytes.split_off(end_of_head + 4);
        let head = String::from_utf8(bytes).ok()?;
        let mut lines = head.lines();
        let mut first = lines.next()?.split(' ');
        let (method, target) = (first.next()?.to_owned(), first.next()?);
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let mut lengths = headers.iter().filter(|(name, _)| name == "content-length");
        let length = lengths
            .next()
            .map_or(0, |(_, value)| value.parse().unwrap());
        while body.len() < length {
            if stream.read_buf(&mut body).await.ok()? == 0 {
                return None;
            }
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Some(Self {
            method,
            path: path.to_owned(),
            query: pairs(query.as_bytes()),
            form: pairs(&body),
            headers,
            body,
        })
    }

    pub fn query(&self, name: &str) -> Option<&str> {
        value(&self.query, name)
    }

    pub fn form(&self, name: &str) -> Option<&str> {
        value(&self.form, name)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        value(&self.headers, name)
    }

    /// The token that opens something.
    pub fn bearer(&self) -> Option<&str> {
        self.header("authorization")?.strip_prefix("Bearer ")
    }
}

fn pairs(bytes: &[u8]) -> Vec<(String, String)> {
    url::form_urlencoded::parse(bytes).into_owned().collect()
}

fn value<'p>(pairs: &'p [(String, String)], name: &str) -> Option<&'p str> {
    let found = pairs.iter().find(|(own, _)| own == name);
    found.map(|(_, value)| value.as_str())
}
