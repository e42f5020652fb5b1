//! The stand-in: a loopback server that plays Google's OAuth endpoints and Gmail, with controls for
//! tests and a log of what it was asked. The order of every Gmail call is: gate, hook, fault, token,
//! quota, answer. It keeps locks only while it reads or changes what they guard.

use std::{
    collections::HashSet,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    serve::ListenerExt,
};
use tokio::{net::TcpListener, sync::Notify};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    faults::{Fault, Match, Method, Script, error_body, message_of},
    gmail_api::{self, Call, Manner, Refused},
    grants::{self, Grants, OAuthAnswer},
    mailbox::Mailbox,
    page,
    quota::{QuotaEnforcement, Window, cost},
    routes::router,
    wire::{self, Answer},
};
use crate::domain::{Clock, QuotaTable};

/// How the stand-in behaves. Its secrets are made up and open nothing but the stand-in.
#[derive(Clone)]
pub struct Options {
    /// The OAuth client it knows.
    pub client_id: String,
    /// That client's secret.
    pub client_secret: String,
    /// Where codes may be sent, compared as text; any loopback address over HTTP where none is given.
    pub redirect_uris: Vec<String>,
    /// Accounts that are signed in at the same browser besides the mailbox's; theirs are empty.
    pub other_accounts: Vec<String>,
    /// The refresh token that holds at first.
    pub refresh_token: String,
    /// How long an access token opens, in seconds; Google says a little less than an hour.
    pub access_token_seconds: u32,
    /// What the person consented to at first, separated by spaces.
    pub scope: String,
    /// The quota it enforces, if any.
    pub quota: Option<QuotaEnforcement>,
    /// How long every answer takes, by the clock.
    pub latency: Duration,
    /// Pages hold no more than this, whatever is asked for.
    pub page_size_cap: Option<usize>,
    /// Whether every refresh gives a new refresh token and ends the old; Google does not.
    pub rotate_refresh_tokens: bool,
    /// Whether `raw` and other base64url is padded.
    pub padded_base64: bool,
    /// Whether requests are kept for [`StandIn::requests`]; a benchmark leaves it off.
    pub log_requests: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            client_id: "demo-client.apps.example.com".to_owned(),
            client_secret: "demo-client-secret".to_owned(),
            redirect_uris: Vec::new(),
            other_accounts: Vec::new(),
            refresh_token: "1//demo-refresh-token".to_owned(),
            access_token_seconds: 3599,
            scope: "https://www.googleapis.com/auth/gmail.readonly".to_owned(),
            quota: None,
            latency: Duration::ZERO,
            page_size_cap: None,
            rotate_refresh_tokens: false,
            padded_base64: true,
            log_requests: true,
        }
    }
}

/// One request, as it was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestLog {
    /// What was called; [`Method::name`] gives Google's name of it.
    pub method: Method,
    /// The message in the path.
    pub id: Option<String>,
    /// The HTTP status; 0 where there was no answer.
    pub status: u16,
    /// The units it cost; a call that a fault, the token or the quota kept from Gmail costs none.
    pub units: u32,
}

/// What the controls change and the log.
#[derive(Default)]
struct Control {
    script: Script,
    held: HashSet<Method>,
    waiting: [usize; Method::COUNT],
    served: [usize; Method::COUNT],
    log: Vec<RequestLog>,
    units: u64,
    page_tokens: u32,
}

/// What the handlers share.
pub(super) struct Shared {
    /// `http://127.0.0.1:PORT`, which is the issuer's name too.
    pub(super) base_url: String,
    /// Who is signed in: the person whose mailbox it is, and the others.
    pub(super) accounts: Vec<String>,
    /// One an account, in their order.
    mailboxes: Vec<Mutex<Mailbox>>,
    control: Mutex<Control>,
    pub(super) grants: Mutex<Grants>,
    spent: Mutex<Window>,
    /// Told whenever a request begins to wait, is let go or is answered.
    moved: Notify,
    pub(super) options: Options,
    pub(super) clock: Arc<dyn Clock>,
    stop: CancellationToken,
}

/// A running stand-in. Dropping it ends it.
pub struct StandIn {
    pub(super) shared: Arc<Shared>,
    pub(super) router: Router,
    tasks: TaskTracker,
}

impl StandIn {
    /// Starts serving `mailbox` on a free port of 127.0.0.1.
    pub async fn start(
        mailbox: Mailbox,
        options: Options,
        clock: Arc<dyn Clock>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let base_url = format!("http://{}", listener.local_addr()?);
        let mut mailboxes = vec![mailbox];
        for (serial, account) in (1..).zip(&options.other_accounts) {
            mailboxes.push(Mailbox::new(account, serial));
        }
        let accounts = mailboxes.iter().map(|own| own.email_address().to_owned());
        let shared = Arc::new(Shared {
            base_url,
            accounts: accounts.collect(),
            mailboxes: mailboxes.into_iter().map(Mutex::new).collect(),
            control: Mutex::new(Control::default()),
            grants: Mutex::new(Grants::new(&options)),
            spent: Mutex::new(Window::default()),
            moved: Notify::new(),
            options,
            clock,
            stop: CancellationToken::new(),
        });
        let stopped = shared.stop.clone().cancelled_owned();
        let listener = listener.tap_io(|connection| {
            // Without it small answers wait for the peer's delayed acknowledgement.
            let _slower_at_worst = connection.set_nodelay(true);
        });
        let router = router(shared.clone());
        let server = axum::serve(listener, router.clone()).with_graceful_shutdown(stopped);
        let tasks = TaskTracker::new();
        tasks.spawn(async move { server.await });
        tasks.close();
        Ok(Self {
            shared,
            router,
            tasks,
        })
    }

    /// Stops and waits until every connection is closed. Calls that hang or are held get no answer.
    pub async fn shutdown(self) {
        self.shared.stop.cancel();
        self.tasks.wait().await;
    }

    /// `http://127.0.0.1:PORT`, before `/gmail/v1/…`.
    pub fn base_url(&self) -> &str {
        &self.shared.base_url
    }

    /// The authorization endpoint, which shows the consent page.
    pub fn authorize_url(&self) -> String {
        format!("{}/o/oauth2/v2/auth", self.base_url())
    }

    /// The token endpoint.
    pub fn token_url(&self) -> String {
        format!("{}/token", self.base_url())
    }

    /// The revocation endpoint.
    pub fn revoke_url(&self) -> String {
        format!("{}/revoke", self.base_url())
    }

    /// Reads or changes the mailbox, between two calls.
    pub fn with_mailbox<R>(&self, work: impl FnOnce(&mut Mailbox) -> R) -> R {
        work(&mut lock(&self.shared.mailboxes[0]))
    }

    /// What was asked since the start or the last [`StandIn::clear_requests`], in order of answer.
    pub fn requests(&self) -> Vec<RequestLog> {
        lock(&self.shared.control).log.clone()
    }

    /// Forgets what was asked and the units spent; [`StandIn::served`] goes on counting.
    pub fn clear_requests(&self) {
        let mut control = lock(&self.shared.control);
        control.log.clear();
        control.units = 0;
    }

    /// The units charged since the start or the last [`StandIn::clear_requests`].
    pub fn units(&self) -> u64 {
        lock(&self.shared.control).units
    }

    /// How many calls of a method were answered since the start.
    pub fn served(&self, method: Method) -> usize {
        lock(&self.shared.control).served[method as usize]
    }

    /// Returns once so many calls of a method have been answered since the start.
    pub async fn wait_for(&self, method: Method, count: usize) {
        let served = |control: &Control| control.served[method as usize] >= count;
        self.shared.until(served).await;
    }

    /// From here on calls of a method wait at the gate, until [`StandIn::release`].
    pub fn hold(&self, method: Method) {
        lock(&self.shared.control).held.insert(method);
    }

    /// Returns once so many calls of a method wait at the gate.
    pub async fn wait_for_held(&self, method: Method, count: usize) {
        let waiting = |control: &Control| control.waiting[method as usize] >= count;
        self.shared.until(waiting).await;
    }

    /// Lets the calls of a method go on.
    pub fn release(&self, method: Method) {
        lock(&self.shared.control).held.remove(&method);
        self.shared.moved.notify_waiters();
    }

    /// The call that is meant goes wrong, once.
    pub fn inject(&self, matches: Match, fault: Fault) {
        self.inject_times(matches, fault, 1);
    }

    /// The call that is meant goes wrong and those of its kind after it, `times` in all.
    pub fn inject_times(&self, matches: Match, fault: Fault, times: u32) {
        let mut control = lock(&self.shared.control);
        control.script.inject(matches, fault, times);
    }

    /// Gmail's calls go wrong at random, so many in a thousand.
    pub fn chaos(&self, seed: u64, per_mille: u32, faults: Vec<Fault>) {
        lock(&self.shared.control)
            .script
            .chaos(seed, per_mille, faults);
    }

    /// Nothing goes wrong from here on. Hooks stay.
    pub fn calm(&self) {
        lock(&self.shared.control).script.calm();
    }

    /// Changes the mailbox just before the call that is meant is answered.
    pub fn on(&self, matches: Match, hook: impl FnOnce(&mut Mailbox) + Send + 'static) {
        lock(&self.shared.control)
            .script
            .hook(matches, Box::new(hook));
    }

    /// A good access token of the mailbox's account, without asking the token endpoint.
    pub fn access_token(&self) -> String {
        let now = self.shared.clock.now();
        lock(&self.shared.grants).issue(&self.shared.options, now)
    }

    /// Access tokens given out so far open nothing any more; the refresh token still holds.
    pub fn expire_access_tokens(&self) {
        lock(&self.shared.grants).expire_access_tokens();
    }

    /// Every consent is withdrawn: no token holds any more.
    pub fn revoke_grant(&self) {
        lock(&self.shared.grants).revoke();
    }

    /// The mailbox's person consents anew: only this of their refresh tokens holds.
    pub fn set_refresh_token(&self, refresh_token: &str) {
        lock(&self.shared.grants).set_refresh_token(&self.shared.options, refresh_token);
    }

    /// The refresh token of the mailbox that holds, if one does; the newest of several.
    pub fn refresh_token(&self) -> Option<String> {
        lock(&self.shared.grants).refresh_token().map(str::to_owned)
    }

    /// Page tokens given out so far are refused from here on.
    pub fn expire_page_tokens(&self) {
        lock(&self.shared.control).page_tokens += 1;
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

impl Shared {
    async fn until(&self, reached: impl Fn(&Control) -> bool) {
        loop {
            let mut moved = std::pin::pin!(self.moved.notified());
            // Listening begins before the look, so that nothing between the two is missed.
            moved.as_mut().enable();
            if reached(&lock(&self.control)) {
                return;
            }
            moved.await;
        }
    }

    /// Waits where the method is held. False when the stand-in stops meanwhile.
    async fn pass_gate(&self, method: Method) -> bool {
        if !lock(&self.control).held.contains(&method) {
            return true;
        }
        let _place = Place::take(self, method);
        tokio::select! {
            () = self.until(|control| !control.held.contains(&method)) => true,
            () = self.stop.cancelled() => false,
        }
    }

    fn record(&self, method: Method, id: Option<String>, status: u16, units: u32) {
        let mut control = lock(&self.control);
        control.served[method as usize] += 1;
        control.units += u64::from(units);
        if self.options.log_requests {
            control.log.push(RequestLog {
                method,
                id,
                status,
                units,
            });
        }
        drop(control);
        self.moved.notify_waiters();
    }

    /// The way of every call: `answer` gives the answer and its units, unless a fault comes first.
    pub(super) async fn serve(
        self: Arc<Self>,
        method: Method,
        id: Option<String>,
        answer: impl FnOnce(&Self) -> (Answer, u32),
    ) -> Response {
        if !self.pass_gate(method).await {
            return stopping();
        }
        if !self.options.latency.is_zero() {
            self.clock.sleep(self.options.latency).await;
        }
        let (hooks, fault) = lock(&self.control).script.next(method, id.as_deref());
        for hook in hooks {
            hook(&mut lock(&self.mailboxes[0]));
        }
        if fault == Some(Fault::Hang) {
            self.record(method, id, 0, 0);
            self.stop.cancelled().await;
            return stopping();
        }
        let (answered, units) = match &fault {
            Some(Fault::Status {
                code,
                reason,
                retry_after_seconds,
            }) => (failure(method, *code, reason, *retry_after_seconds), 0),
            _ => answer(&self),
        };
        self.record(method, id, answered.code, units);
        wire::respond(answered, fault, &self.clock)
    }

    /// Gmail's answer to a call that nothing kept from it.
    pub(super) fn gmail(&self, call: &Call, headers: &HeaderMap) -> (Answer, u32) {
        let now = self.clock.now();
        let bearer = text(headers, header::AUTHORIZATION)
            .and_then(|authorization| authorization.strip_prefix("Bearer "));
        let access = bearer.and_then(|token| lock(&self.grants).opens(token, now));
        let Some(access) = access else {
            return (failure(call.method, 401, "authError", None), 0);
        };
        if !access.gmail {
            let answer = failure(call.method, 403, "insufficientPermissions", None);
            return (answer, 0);
        }
        let table = self
            .options
            .quota
            .map_or(QuotaTable::Y2026, |quota| quota.table);
        let units = cost(&table, call.method);
        if let Some(quota) = &self.options.quota
            && let Err(refusal) = lock(&self.spent).spend(quota, units, now)
        {
            let body = error_body(refusal.code, refusal.reason, &refusal.message);
            let mut answer = Answer::json(refusal.code, body);
            answer.retry_after_seconds = refusal.retry_after_seconds;
            return (answer, 0);
        }
        let manner = Manner {
            page_size_cap: self.options.page_size_cap,
            padded: self.options.padded_base64,
            generation: lock(&self.control).page_tokens,
        };
        match gmail_api::answer(call, &self.mailboxes[access.account], &manner) {
            Ok(body) => (Answer::json(200, body), units),
            Err(Refused {
                code,
                reason,
                message,
            }) => (
                Answer::json(code, error_body(code, reason, &message)),
                units,
            ),
        }
    }
}

/// A call that waits at the gate. Dropping it, because the client hung up for instance, leaves.
struct Place<'s> {
    shared: &'s Shared,
    method: Method,
}

impl<'s> Place<'s> {
    fn take(shared: &'s Shared, method: Method) -> Self {
        lock(&shared.control).waiting[method as usize] += 1;
        shared.moved.notify_waiters();
        Self { shared, method }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        lock(&self.shared.control).waiting[self.method as usize] -= 1;
    }
}

/// The guarded value, also after a test panicked while it held the lock.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An injected error in the endpoint's own shape.
fn failure(method: Method, code: u16, reason: &str, retry_after_seconds: Option<u32>) -> Answer {
    let message = message_of(code, reason);
    let error = if code >= 500 {
        "internal_failure"
    } else {
        reason
    };
    let mut answer = match method {
        Method::Authorize | Method::Consent => {
            Answer::page(code, page::refusal(code, error, message))
        }
        Method::Token | Method::Revoke => {
            let OAuthAnswer { body, .. } = grants::refusal(code, error, message);
            Answer::json(code, body.to_string())
        }
        _ => Answer::json(code, error_body(code, reason, message)),
    };
    answer.retry_after_seconds = retry_after_seconds;
    answer
}

/// What a call gets that waits while the stand-in stops; its client has given up by then.
fn stopping() -> Response {
    StatusCode::SERVICE_UNAVAILABLE.into_response()
}

/// A header's value, where it is plain text.
pub(super) fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod authorization_tests;
#[cfg(test)]
mod tests;
