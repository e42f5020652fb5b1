//! Everything that may go wrong, by script or by chance, and Google's error bodies
//! (<https://developers.google.com/workspace/gmail/api/guides/handle-errors>). It decides which call
//! is hit; [`super::google`] carries it out.

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::{Value, json};

use super::mailbox::Mailbox;

/// A call that the stand-in answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// `users.getProfile`.
    GetProfile,
    /// `users.messages.list`.
    MessagesList,
    /// `users.messages.get`.
    MessagesGet,
    /// `users.messages.attachments.get`.
    AttachmentsGet,
    /// `users.history.list`.
    HistoryList,
    /// `users.labels.list`.
    LabelsList,
    /// The authorization endpoint: the consent page.
    Authorize,
    /// The person's answer to the consent page.
    Consent,
    /// The token endpoint.
    Token,
    /// The revocation endpoint.
    Revoke,
}

impl Method {
    /// How many there are.
    pub const COUNT: usize = 10;

    /// The name in logs, after Google's.
    pub fn name(self) -> &'static str {
        match self {
            Self::GetProfile => "getProfile",
            Self::MessagesList => "messages.list",
            Self::MessagesGet => "messages.get",
            Self::AttachmentsGet => "attachments.get",
            Self::HistoryList => "history.list",
            Self::LabelsList => "labels.list",
            Self::Authorize => "authorize",
            Self::Consent => "consent",
            Self::Token => "token",
            Self::Revoke => "revoke",
        }
    }

    /// Whether it is one of Gmail's, and no OAuth endpoint.
    pub fn is_gmail(self) -> bool {
        !matches!(
            self,
            Self::Authorize | Self::Consent | Self::Token | Self::Revoke
        )
    }
}

/// What goes wrong with an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// An error in the endpoint's own shape instead of the answer.
    Status {
        /// The HTTP status.
        code: u16,
        /// Google's reason; at the token endpoint its `error`.
        reason: &'static str,
        /// The Retry-After header, in seconds.
        retry_after_seconds: Option<u32>,
    },
    /// Valid HTTP around half of the answer.
    TruncatedJson,
    /// The connection breaks in the middle of the body.
    ResetConnection,
    /// Status 200 with a page of HTML.
    NotJson,
    /// Status 200 with nothing.
    EmptyBody,
    /// No answer until the stand-in stops.
    Hang,
    /// The answer, slowly.
    Slow {
        /// How slowly, in bytes a second.
        bytes_per_second: u32,
    },
    /// Status 200 with one JSON string.
    HugeBody {
        /// How long, in bytes.
        bytes: u64,
    },
    /// Status 200 with this JSON in place of the answer.
    Json(String),
    /// The answer without a member of its JSON, or its redirect without a parameter.
    Lacks(&'static str),
    /// The answer with another value of a member of its JSON, or of a parameter of its redirect.
    Says(&'static str, Value),
    /// The answer with a redirect to elsewhere.
    Redirect {
        /// The HTTP status, 307 for instance.
        code: u16,
        /// The Location header.
        location: String,
    },
}

impl Fault {
    /// An error of a status and a reason, without Retry-After.
    pub const fn status(code: u16, reason: &'static str) -> Self {
        Self::Status {
            code,
            reason,
            retry_after_seconds: None,
        }
    }

    /// Status 429 with Retry-After in seconds.
    pub const fn retry_after(seconds: u32) -> Self {
        Self::Status {
            code: 429,
            reason: "rateLimitExceeded",
            retry_after_seconds: Some(seconds),
        }
    }

    /// What passes by itself: refusals to come back later, outages, broken answers.
    pub fn passing() -> Vec<Self> {
        vec![
            Self::status(403, "userRateLimitExceeded"),
            Self::status(403, "rateLimitExceeded"),
            Self::status(429, "rateLimitExceeded"),
            Self::retry_after(1),
            Self::status(500, "backendError"),
            Self::status(502, "backendError"),
            Self::status(503, "backendError"),
            Self::status(504, "backendError"),
            Self::TruncatedJson,
            Self::ResetConnection,
            Self::NotJson,
            Self::EmptyBody,
        ]
    }

    /// What does not pass by itself: a mistake, a withdrawn or missing right, a limit of the day.
    pub fn lasting() -> Vec<Self> {
        vec![
            Self::status(400, "badRequest"),
            Self::status(401, "authError"),
            Self::status(403, "dailyLimitExceeded"),
            Self::status(403, "domainPolicy"),
            Self::status(403, "insufficientPermissions"),
            Self::status(404, "notFound"),
        ]
    }
}

/// Which call is meant: by default the next one, whatever it is.
#[derive(Debug, Clone, Default)]
pub struct Match {
    method: Option<Method>,
    id: Option<String>,
    nth: u32,
}

impl Match {
    /// The next call.
    pub fn any() -> Self {
        Self::default()
    }

    /// The next call of a method.
    pub fn method(method: Method) -> Self {
        Self {
            method: Some(method),
            ..Self::default()
        }
    }

    /// The next `messages.get` of a message.
    pub fn id(id: &str) -> Self {
        Self {
            method: Some(Method::MessagesGet),
            id: Some(id.to_owned()),
            nth: 0,
        }
    }

    /// The nth call of that kind from here on, counted from 1.
    pub fn nth(mut self, nth: u32) -> Self {
        self.nth = nth;
        self
    }

    fn fits(&self, method: Method, id: Option<&str>) -> bool {
        self.method.is_none_or(|own| own == method)
            && self.id.as_deref().is_none_or(|own| Some(own) == id)
    }
}

/// Changes the mailbox just before a call is answered.
pub type Hook = Box<dyn FnOnce(&mut Mailbox) + Send>;

struct Scripted {
    matches: Match,
    seen: u32,
    left: u32,
    fault: Fault,
}

struct Waiting {
    matches: Match,
    seen: u32,
    hook: Hook,
}

struct Chaos {
    random: StdRng,
    per_mille: u32,
    faults: Vec<Fault>,
}

/// The faults and hooks that are still to come.
#[derive(Default)]
pub struct Script {
    scripted: Vec<Scripted>,
    waiting: Vec<Waiting>,
    chaos: Option<Chaos>,
}

impl Script {
    /// Hits the call that is meant and the calls of its kind after it, `times` in all.
    pub fn inject(&mut self, matches: Match, fault: Fault, times: u32) {
        self.scripted.push(Scripted {
            matches,
            seen: 0,
            left: times,
            fault,
        });
    }

    /// Runs `hook` just before the call that is meant is answered.
    pub fn hook(&mut self, matches: Match, hook: Hook) {
        self.waiting.push(Waiting {
            matches,
            seen: 0,
            hook,
        });
    }

    /// From here on hits calls of Gmail's methods at random, so many in a thousand.
    pub fn chaos(&mut self, seed: u64, per_mille: u32, faults: Vec<Fault>) {
        self.chaos = Some(Chaos {
            random: StdRng::seed_from_u64(seed),
            per_mille,
            faults,
        });
    }

    /// Nothing goes wrong any more, neither by chance nor by script. Hooks stay.
    pub fn calm(&mut self) {
        self.chaos = None;
        self.scripted.clear();
    }

    /// A call has come: the hooks to run before it and the fault that hits it.
    pub fn next(&mut self, method: Method, id: Option<&str>) -> (Vec<Hook>, Option<Fault>) {
        let mut hooks = Vec::new();
        let mut index = 0;
        while index < self.waiting.len() {
            let waiting = &mut self.waiting[index];
            if waiting.matches.fits(method, id) {
                waiting.seen += 1;
                if waiting.seen >= waiting.matches.nth {
                    hooks.push(self.waiting.remove(index).hook);
                    continue;
                }
            }
            index += 1;
        }
        let mut fault = None;
        for scripted in &mut self.scripted {
            if !scripted.matches.fits(method, id) {
                continue;
            }
            scripted.seen += 1;
            if fault.is_none() && scripted.seen >= scripted.matches.nth && scripted.left > 0 {
                scripted.left -= 1;
                fault = Some(scripted.fault.clone());
            }
        }
        self.scripted.retain(|scripted| scripted.left > 0);
        if fault.is_none() && method.is_gmail() {
            fault = self.chaos.as_mut().and_then(Chaos::roll);
        }
        (hooks, fault)
    }
}

impl Chaos {
    fn roll(&mut self) -> Option<Fault> {
        if self.random.random_range(0..1000) >= self.per_mille {
            return None;
        }
        self.faults.choose(&mut self.random).cloned()
    }
}

/// An error in the shape of Google's APIs.
pub fn error_body(code: u16, reason: &str, message: &str) -> String {
    let domain = match reason {
        "dailyLimitExceeded" | "userRateLimitExceeded" | "rateLimitExceeded" => "usageLimits",
        _ => "global",
    };
    let status = match code {
        400 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        _ => "INTERNAL",
    };
    let mut detail = json!({"message": message, "domain": domain, "reason": reason});
    if code == 401 {
        detail["message"] = json!("Invalid Credentials");
        detail["location"] = json!("Authorization");
        detail["locationType"] = json!("header");
    }
    let body = json!({
        "error": {"code": code, "message": message, "errors": [detail], "status": status}
    });
    format!("{body:#}")
}

/// What Google writes beside a reason.
pub fn message_of(code: u16, reason: &str) -> &'static str {
    match reason {
        "badRequest" => "Bad Request",
        "invalidArgument" => "Request contains an invalid argument.",
        "failedPrecondition" => "Mail service not enabled",
        "authError" => {
            "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project."
        }
        "dailyLimitExceeded" => "Daily Limit Exceeded",
        "userRateLimitExceeded" => "User Rate Limit Exceeded",
        "rateLimitExceeded" if code == 429 => "Too many concurrent requests for user",
        "rateLimitExceeded" => "Rate Limit Exceeded",
        "domainPolicy" => "The domain administrators have disabled Gmail apps.",
        "insufficientPermissions" => "Request had insufficient authentication scopes.",
        "notFound" => "Requested entity was not found.",
        "backendError" if code == 503 => "The service is currently unavailable.",
        "backendError" => "Internal error encountered.",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scripted_fault_hits_exactly_the_calls_that_are_meant() {
        let mut script = Script::default();
        let fault = Fault::status(500, "backendError");
        script.inject(Match::method(Method::MessagesGet).nth(2), fault.clone(), 2);
        script.inject(Match::id("ff"), Fault::Hang, 1);
        let mut hits = Vec::new();
        for (method, id) in [
            (Method::MessagesList, None),
            (Method::MessagesGet, Some("1")),
            (Method::MessagesGet, Some("2")),
            (Method::MessagesGet, Some("3")),
            (Method::MessagesGet, Some("4")),
            (Method::MessagesGet, Some("ff")),
            (Method::MessagesGet, Some("ff")),
        ] {
            hits.push(script.next(method, id).1);
        }
        let server = Some(fault);
        let expected = [
            None,
            None,
            server.clone(),
            server,
            None,
            Some(Fault::Hang),
            None,
        ];
        assert_eq!(hits, expected);
    }

    #[test]
    fn chance_keeps_its_rate_its_seed_and_off_the_token_endpoint() {
        let run = |seed| {
            let mut script = Script::default();
            script.chaos(seed, 100, Fault::passing());
            assert_eq!(script.next(Method::Token, None).1, None);
            let calls = (0..2000).map(|_| script.next(Method::MessagesGet, None).1);
            calls.collect::<Vec<_>>()
        };
        let hits = run(1).into_iter().flatten().count();
        assert!((140..260).contains(&hits), "{hits} of 2000");
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        let mut script = Script::default();
        script.chaos(1, 1000, Fault::passing());
        script.calm();
        assert_eq!(script.next(Method::MessagesGet, None).1, None);
    }

    #[test]
    fn errors_have_googles_shape() {
        let body: serde_json::Value =
            serde_json::from_str(&error_body(401, "authError", "no")).unwrap();
        assert_eq!(
            body,
            json!({"error": {
                "code": 401,
                "message": "no",
                "errors": [{
                    "message": "Invalid Credentials",
                    "domain": "global",
                    "reason": "authError",
                    "location": "Authorization",
                    "locationType": "header",
                }],
                "status": "UNAUTHENTICATED",
            }})
        );
        let body: serde_json::Value =
            serde_json::from_str(&error_body(403, "userRateLimitExceeded", "slow")).unwrap();
        assert_eq!(body["error"]["errors"][0]["domain"], "usageLimits");
    }
}
