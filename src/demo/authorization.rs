//! Google's authorization endpoint: what a request asks for, whether it may ask, and where the
//! browser goes with the person's answer
//! (<https://developers.google.com/identity/protocols/oauth2/web-server>). A request that is wrong is
//! answered with a page and never with a redirect, as Google does it, so that nobody can be sent to
//! an address that the client did not register.

use url::{Host, Url, form_urlencoded};

use super::{
    google::{Options, Shared, lock},
    grants::{Challenge, Consented},
    page,
    person::Consent,
    wire::Answer,
};

/// What may be asked for, and how the consent page puts it.
const SCOPES: &[(&str, &str)] = &[
    (
        "https://www.googleapis.com/auth/gmail.readonly",
        "View your email messages and settings",
    ),
    (
        "https://www.googleapis.com/auth/gmail.metadata",
        "View your email message metadata such as labels and headers, but not the email body",
    ),
    (
        "https://www.googleapis.com/auth/calendar.readonly",
        "See and download any calendar you can access using your Google Calendar",
    ),
    (
        "https://www.googleapis.com/auth/drive.readonly",
        "See and download all your Google Drive files",
    ),
];

/// A request that may be shown to the person.
struct AuthorizationRequest {
    client_id: String,
    /// As it was sent, for the token endpoint to compare.
    redirect_uri: String,
    /// The same, taken apart.
    redirect: Url,
    scopes: Vec<String>,
    state: Option<String>,
    /// Whether a refresh token is asked for.
    offline: bool,
    prompt: Prompt,
    challenge: Option<Challenge>,
    login_hint: Option<String>,
    /// Whether the tokens open what was granted earlier too.
    include_granted_scopes: bool,
}

/// When the person is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prompt {
    /// Unless everything was granted before.
    Unneeded,
    /// Never.
    None,
    /// Always, to choose an account.
    SelectAccount,
    /// Always, and a refresh token is given anew.
    Consent,
}

/// Why there is no consent page.
#[derive(Debug, PartialEq, Eq)]
struct Refused {
    /// The HTTP status.
    code: u16,
    /// OAuth's or Google's error code.
    error: &'static str,
    /// Google's words.
    description: String,
}

impl Refused {
    /// 400 `invalid_request`.
    fn request(description: impl Into<String>) -> Self {
        Self {
            code: 400,
            error: "invalid_request",
            description: description.into(),
        }
    }

    /// The page that says so.
    fn page(&self) -> Answer {
        let html = page::refusal(self.code, self.error, &self.description);
        Answer::page(self.code, html)
    }
}

/// What the person chose on the page.
struct Decision {
    /// Which of the accounts.
    account: usize,
    /// The scopes that are granted; none where the person refuses.
    scopes: Vec<String>,
}

impl AuthorizationRequest {
    /// Reads the query and holds it against what the client may ask for.
    fn read(query: &str, options: &Options) -> Result<Self, Refused> {
        let parameters = Parameters::read(query)?;
        let client_id = parameters.required("client_id")?;
        if client_id != options.client_id {
            return Err(Refused {
                code: 401,
                error: "invalid_client",
                description: "The OAuth client was not found.".to_owned(),
            });
        }
        let redirect_uri = parameters.required("redirect_uri")?;
        let Some(redirect) = registered(redirect_uri, &options.redirect_uris) else {
            return Err(Refused {
                code: 400,
                error: "redirect_uri_mismatch",
                description: format!(
                    "The redirect URI in the request, {redirect_uri}, does not match the ones authorized for the OAuth client."
                ),
            });
        };
        let response_type = parameters.required("response_type")?;
        if response_type != "code" {
            return Err(Refused {
                code: 400,
                error: "unsupported_response_type",
                description: format!("Invalid response_type: {response_type}"),
            });
        }
        let include_granted_scopes = parameters.one_of(
            "include_granted_scopes",
            &[("false", false), ("true", true)],
        )?;
        let offline = parameters.one_of("access_type", &[("online", false), ("offline", true)])?;
        Ok(Self {
            client_id: client_id.to_owned(),
            redirect_uri: redirect_uri.to_owned(),
            redirect,
            scopes: scopes(parameters.required("scope")?)?,
            state: parameters.get("state").map(str::to_owned),
            offline: offline.unwrap_or(false),
            prompt: prompt(parameters.get("prompt").unwrap_or_default())?,
            challenge: challenge(&parameters)?,
            login_hint: parameters.get("login_hint").map(str::to_owned),
            include_granted_scopes: include_granted_scopes.unwrap_or(false),
        })
    }

    /// Which account is chosen before the person chooses: the hinted one, else the first.
    fn account(&self, accounts: &[String]) -> usize {
        let hinted = |account: &String| Some(account) == self.login_hint.as_ref();
        accounts.iter().position(hinted).unwrap_or(0)
    }

    /// The consent page.
    fn page(&self, accounts: &[String]) -> String {
        let scopes = self.scopes.iter().map(|scope| {
            let known = SCOPES.iter().find(|(name, _)| name == scope);
            (scope.as_str(), known.map_or("", |(_, meaning)| meaning))
        });
        page::ConsentPage {
            client_id: &self.client_id,
            redirect_uri: &self.redirect_uri,
            accounts,
            chosen: self.account(accounts),
            scopes: scopes.collect(),
        }
        .html()
    }

    /// What the page's form says.
    fn decision(
        &self,
        form: &[(String, String)],
        accounts: &[String],
    ) -> Result<Decision, Refused> {
        let values = |name: &'static str| {
            let named = form.iter().filter(move |(own, _)| own == name);
            named.map(|(_, value)| value)
        };
        let chosen = values("account").next();
        let account = accounts
            .iter()
            .position(|account| Some(account) == chosen)
            .ok_or_else(|| Refused::request("Choose one of the accounts."))?;
        let mut scopes: Vec<String> = values("scope").cloned().collect();
        if scopes.iter().any(|scope| !self.scopes.contains(scope)) {
            return Err(Refused::request("A scope was not asked for."));
        }
        match values("decision").next().map(String::as_str) {
            Some("continue") => {}
            Some("cancel") => scopes.clear(),
            _ => return Err(Refused::request("Continue or cancel.")),
        }
        Ok(Decision { account, scopes })
    }

    /// Where the browser goes with a code.
    fn granted(&self, issuer: &str, code: &str, scopes: &[String]) -> String {
        let scope = scopes.join(" ");
        self.back(issuer, &[("code", code), ("scope", &scope)])
    }

    /// Where the browser goes without one.
    fn refused(&self, issuer: &str, error: &str) -> String {
        self.back(issuer, &[("error", error)])
    }

    fn back(&self, issuer: &str, answer: &[(&str, &str)]) -> String {
        let mut location = self.redirect.clone();
        let mut query = location.query_pairs_mut();
        if let Some(state) = &self.state {
            query.append_pair("state", state);
        }
        // RFC 9207, section 2: errors bear it too.
        query.append_pair("iss", issuer);
        query.extend_pairs(answer);
        drop(query);
        location.into()
    }
}

impl Shared {
    /// Answers the authorization endpoint: the consent page, or the code where nothing is left to ask.
    pub(super) fn authorize(&self, query: &str) -> Answer {
        let request = match AuthorizationRequest::read(query, &self.options) {
            Ok(request) => request,
            Err(refused) => return refused.page(),
        };
        let account = request.account(&self.accounts);
        let is_covered = lock(&self.grants).covers(account, &request.scopes);
        match request.prompt {
            Prompt::Unneeded | Prompt::None if is_covered => {
                let scopes = request.scopes.clone();
                self.grant(&request, Decision { account, scopes })
            }
            Prompt::None => {
                Answer::redirect(request.refused(&self.base_url, "interaction_required"))
            }
            _ => Answer::page(200, request.page(&self.accounts)),
        }
    }

    /// Answers the consent page's form.
    pub(super) fn consent(&self, query: &str, form: &[(String, String)]) -> Answer {
        let read = AuthorizationRequest::read(query, &self.options).and_then(|request| {
            let decision = request.decision(form, &self.accounts)?;
            Ok((request, decision))
        });
        match read {
            Ok((request, decision)) if decision.scopes.is_empty() => {
                Answer::redirect(request.refused(&self.base_url, "access_denied"))
            }
            Ok((request, decision)) => self.grant(&request, decision),
            Err(refused) => refused.page(),
        }
    }

    /// The consent page's form as a person fills it in. A query that is wrong fills nothing in.
    pub(super) fn filled_in(&self, query: &str, consent: &Consent) -> String {
        let mut form = form_urlencoded::Serializer::new(String::new());
        if let Ok(request) = AuthorizationRequest::read(query, &self.options) {
            let chosen = &self.accounts[request.account(&self.accounts)];
            form.append_pair("account", consent.account.as_ref().unwrap_or(chosen));
            let ticked = request.scopes.iter();
            for scope in ticked.filter(|scope| !consent.unticked.contains(scope)) {
                form.append_pair("scope", scope);
            }
        }
        let decision = if consent.cancelled {
            "cancel"
        } else {
            "continue"
        };
        form.append_pair("decision", decision).finish()
    }

    fn grant(&self, request: &AuthorizationRequest, decision: Decision) -> Answer {
        let Decision { account, scopes } = decision;
        let mut grants = lock(&self.grants);
        // A refresh token is given once, and again only where the person was asked anew.
        let is_first = !grants.is_offline(account);
        let consented = Consented {
            account,
            scopes: scopes.clone(),
            redirect_uri: request.redirect_uri.clone(),
            challenge: request.challenge.clone(),
            refresh: request.offline && (is_first || request.prompt == Prompt::Consent),
        };
        let now = self.clock.now();
        let code = grants.code(consented, request.include_granted_scopes, now);
        Answer::redirect(request.granted(&self.base_url, &code, &scopes))
    }
}

/// The query, each name once.
struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn read(query: &str) -> Result<Self, Refused> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()).into_owned() {
            if pairs.iter().any(|(own, _)| *own == name) {
                let only = format!("OAuth 2 parameters can only have a single value: {name}");
                return Err(Refused::request(only));
            }
            pairs.push((name, value));
        }
        Ok(Self(pairs))
    }

    /// A value that is not empty: RFC 6749, section 3.1, treats an empty one as left out.
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(own, _)| own == name);
        let value = found.map(|(_, value)| value.as_str());
        value.filter(|value| !value.is_empty())
    }

    fn required(&self, name: &str) -> Result<&str, Refused> {
        let missing = || Refused::request(format!("Missing required parameter: {name}"));
        self.get(name).ok_or_else(missing)
    }

    fn one_of<T: Copy>(&self, name: &str, known: &[(&str, T)]) -> Result<Option<T>, Refused> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match known.iter().find(|(own, _)| *own == value) {
            Some((_, meaning)) => Ok(Some(*meaning)),
            None => Err(invalid(name, value)),
        }
    }
}

fn invalid(name: &str, value: &str) -> Refused {
    Refused::request(format!("Invalid parameter value for {name}: {value}"))
}

/// The redirect URI, if the client may use it: exactly a registered one, or, where none is
/// registered, any address of this machine over plain HTTP.
fn registered(redirect_uri: &str, registered: &[String]) -> Option<Url> {
    let url = Url::parse(redirect_uri).ok()?;
    if url.fragment().is_some() {
        return None;
    }
    let is_known = if registered.is_empty() {
        let is_loopback = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        url.scheme() == "http" && is_loopback
    } else {
        registered.iter().any(|own| own == redirect_uri)
    };
    is_known.then_some(url)
}

fn scopes(text: &str) -> Result<Vec<String>, Refused> {
    let (mut valid, mut unknown) = (Vec::new(), Vec::new());
    for scope in text.split(' ').filter(|scope| !scope.is_empty()) {
        let known = SCOPES.iter().any(|(name, _)| *name == scope);
        let list = if known { &mut valid } else { &mut unknown };
        if !list.iter().any(|own| own == scope) {
            list.push(scope.to_owned());
        }
    }
    if unknown.is_empty() && !valid.is_empty() {
        return Ok(valid);
    }
    Err(Refused {
        code: 400,
        error: "invalid_scope",
        description: format!(
            "Some requested scopes were invalid. {{valid=[{}], invalid=[{}]}}",
            valid.join(", "),
            unknown.join(", ")
        ),
    })
}

/// A list of words, of which `none` stands alone.
fn prompt(text: &str) -> Result<Prompt, Refused> {
    let mut prompt = Prompt::Unneeded;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        prompt = match (word, prompt) {
            ("consent", Prompt::Unneeded | Prompt::SelectAccount) => Prompt::Consent,
            ("select_account", Prompt::Unneeded) => Prompt::SelectAccount,
            ("select_account", Prompt::Consent) => Prompt::Consent,
            ("none", Prompt::Unneeded) => Prompt::None,
            _ => return Err(invalid("prompt", text)),
        };
    }
    Ok(prompt)
}

fn challenge(parameters: &Parameters) -> Result<Option<Challenge>, Refused> {
    let method = parameters.get("code_challenge_method");
    let Some(value) = parameters.get("code_challenge") else {
        return match method {
            None => Ok(None),
            Some(_) => Err(Refused::request(
                "code_challenge_method goes with code_challenge",
            )),
        };
    };
    // RFC 7636, sections 4.1 and 4.2.
    let is_unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if !(43..=128).contains(&value.len()) || !value.bytes().all(is_unreserved) {
        return Err(invalid("code_challenge", value));
    }
    match method {
        Some("S256") => Ok(Some(Challenge::S256(value.to_owned()))),
        None | Some("plain") => Ok(Some(Challenge::Plain(value.to_owned()))),
        Some(other) => Err(invalid("code_challenge_method", other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "client_id=demo-client.apps.example.com&response_type=code&scope=https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fgmail.readonly&redirect_uri=http%3A%2F%2F127.0.0.1%3A1%2Fback%3Fx%3D1&state=s%26t";

    fn refused(query: &str) -> (u16, &'static str) {
        match AuthorizationRequest::read(query, &Options::default()) {
            Ok(_) => panic!("taken: {query}"),
            Err(refused) => (refused.code, refused.error),
        }
    }

    #[test]
    fn a_request_that_is_wrong_is_refused_with_googles_code() {
        let without = |name: &str| {
            let kept = GOOD.split('&').filter(|pair| !pair.starts_with(name));
            kept.collect::<Vec<_>>().join("&")
        };
        let with = |name: &str, value: &str| format!("{}&{name}={value}", without(name));
        for name in ["client_id", "redirect_uri", "response_type", "scope"] {
            assert_eq!(refused(&without(name)), (400, "invalid_request"), "{name}");
            assert_eq!(refused(&with(name, "")), (400, "invalid_request"), "{name}");
        }
        assert_eq!(refused(&with("client_id", "who")), (401, "invalid_client"));
        for uri in [
            "https://127.0.0.1/",
            "http://example.com/",
            "http://127.0.0.1.example.com/",
            "http://127.0.0.1@example.com/",
            "http://127.0.0.1/%23x",
            "urn:ietf:wg:oauth:2.0:oob",
            "nothing",
        ] {
            let query = with("redirect_uri", uri);
            assert_eq!(refused(&query), (400, "redirect_uri_mismatch"), "{uri}");
        }
        for (name, value, error) in [
            ("response_type", "token", "unsupported_response_type"),
            ("scope", "openid", "invalid_scope"),
            ("scope", "+", "invalid_scope"),
            ("access_type", "always", "invalid_request"),
            ("include_granted_scopes", "yes", "invalid_request"),
            ("prompt", "none+consent", "invalid_request"),
            ("prompt", "login", "invalid_request"),
            ("code_challenge_method", "S256", "invalid_request"),
            ("code_challenge", "short", "invalid_request"),
        ] {
            assert_eq!(refused(&with(name, value)), (400, error), "{name}={value}");
        }
        let challenge = format!("{GOOD}&code_challenge={}", "a".repeat(43));
        let other = format!("{challenge}&code_challenge_method=S512");
        assert_eq!(refused(&other), (400, "invalid_request"));
        assert_eq!(
            refused(&format!("{GOOD}&state=2")),
            (400, "invalid_request")
        );
    }

    #[test]
    fn a_registered_redirect_uri_is_compared_as_text() {
        let registered = |uri: &str| {
            let options = Options {
                redirect_uris: vec![uri.to_owned()],
                ..Options::default()
            };
            AuthorizationRequest::read(GOOD, &options).is_ok()
        };
        assert!(registered("http://127.0.0.1:1/back?x=1"));
        assert!(!registered("http://127.0.0.1:1/back"));
        assert!(!registered("http://127.0.0.1:1/back?x=1&"));
        assert!(!registered("http://localhost:1/back?x=1"));
    }

    #[test]
    fn the_answer_goes_back_beside_what_the_uri_says_already() {
        let query = format!("{GOOD}&login_hint=b@x&prompt=select_account+consent");
        let request = AuthorizationRequest::read(&query, &Options::default()).unwrap();
        assert_eq!(request.prompt, Prompt::Consent);
        let accounts = ["a@x".to_owned(), "b@x".to_owned()];
        assert_eq!(request.account(&accounts), 1);
        assert_eq!(
            request.granted("http://i", "4/x", &request.scopes),
            "http://127.0.0.1:1/back?x=1&state=s%26t&iss=http%3A%2F%2Fi&code=4%2Fx&scope=https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fgmail.readonly"
        );
        assert_eq!(
            request.refused("http://i", "access_denied"),
            "http://127.0.0.1:1/back?x=1&state=s%26t&iss=http%3A%2F%2Fi&error=access_denied"
        );
    }
}
