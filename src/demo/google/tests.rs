//! The stand-in over a real connection, as any HTTP client sees it.

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    super::{generate, quota::RefusalStyle},
    *,
};

/// A clock that moves when it is told to, and by waiting on it.
pub(super) struct TestClock(Mutex<DateTime<Utc>>);

impl TestClock {
    fn start() -> Arc<Self> {
        let time = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        Arc::new(Self(Mutex::new(time)))
    }

    fn advance(&self, seconds: i64) {
        *self.0.lock().unwrap() += TimeDelta::seconds(seconds);
    }
}

#[async_trait]
impl Clock for TestClock {
    fn now(&self) -> DateTime<Utc> {
        *self.0.lock().unwrap()
    }

    async fn sleep(&self, duration: Duration) {
        *self.0.lock().unwrap() += TimeDelta::from_std(duration).unwrap();
        tokio::task::yield_now().await;
    }
}

/// A response as it came off the connection.
pub(super) struct Got {
    pub(super) status: u16,
    pub(super) headers: String,
    pub(super) body: Vec<u8>,
    declared: usize,
}

impl Got {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(super) fn reason(&self) -> (u16, String) {
        let json = self.json();
        let reason = json["error"]["errors"][0]["reason"].as_str().unwrap();
        (self.status, reason.to_owned())
    }
}

pub(super) async fn exchange(stand_in: &StandIn, request: String) -> Option<Got> {
    let address = stand_in.base_url().strip_prefix("http://").unwrap();
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    // A connection that breaks still leaves what came before.
    let _broken_off = connection.read_to_end(&mut bytes).await;
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let lines = head.lines().map(|line| match line.split_once(':') {
        Some((name, value)) => format!("{}:{value}", name.to_lowercase()),
        None => line.to_owned(),
    });
    let headers = lines.collect::<Vec<_>>().join("\n");
    let length = headers.split("content-length: ").nth(1)?;
    Some(Got {
        status: headers[9..12].parse().unwrap(),
        declared: length.lines().next()?.parse().unwrap(),
        body: bytes[end + 4..].to_vec(),
        headers,
    })
}

pub(super) async fn get_as(stand_in: &StandIn, token: &str, path: &str) -> Got {
    let request = format!(
        "GET /gmail/v1/users/me/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    exchange(stand_in, request).await.unwrap()
}

async fn get(stand_in: &StandIn, path: &str) -> Got {
    let token = stand_in.access_token();
    get_as(stand_in, &token, path).await
}

pub(super) async fn post(stand_in: &StandIn, path: &str, form: &str) -> Got {
    let length = form.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {length}\r\n\r\n{form}"
    );
    exchange(stand_in, request).await.unwrap()
}

pub(super) async fn start(options: Options) -> (StandIn, Arc<TestClock>) {
    let clock = TestClock::start();
    let mailbox = generate::mailbox(20, 1);
    let stand_in = StandIn::start(mailbox, options, clock.clone())
        .await
        .unwrap();
    (stand_in, clock)
}

pub(super) const REFRESH: &str = "grant_type=refresh_token&refresh_token=1%2F%2Fdemo-refresh-token&client_id=demo-client.apps.example.com&client_secret=demo-client-secret";

#[tokio::test]
async fn a_client_refreshes_lists_and_reads() {
    let (stand_in, _clock) = start(Options::default()).await;
    let granted = post(&stand_in, "/token", REFRESH).await.json();
    let token = granted["access_token"].as_str().unwrap();
    let profile = get_as(&stand_in, token, "profile").await;
    assert_eq!(profile.json()["emailAddress"], "alex@example.com");
    assert_eq!(profile.json()["messagesTotal"], 20);
    assert_eq!(profile.declared, profile.body.len());
    let page = get_as(
        &stand_in,
        token,
        "messages?maxResults=5&includeSpamTrash=true",
    )
    .await;
    let ids = stand_in.with_mailbox(|mailbox| mailbox.ids());
    assert_eq!(page.json()["messages"][4]["id"], ids[4].as_str());
    let message = get_as(&stand_in, token, &format!("messages/{}?format=raw", ids[0])).await;
    assert_eq!(message.status, 200);
    let labels = get_as(&stand_in, token, "labels").await.json();
    assert_eq!(
        labels["labels"][14],
        json!({"id": "Label_1", "name": "Receipts", "type": "user"})
    );
    let log: Vec<_> = stand_in
        .requests()
        .into_iter()
        .map(|request| {
            (
                request.method.name(),
                request.id,
                request.status,
                request.units,
            )
        })
        .collect();
    assert_eq!(
        log,
        [
            ("token", None, 200, 0),
            ("getProfile", None, 200, 1),
            ("messages.list", None, 200, 5),
            ("messages.get", Some(ids[0].clone()), 200, 20),
            ("labels.list", None, 200, 1),
        ]
    );
    assert_eq!(stand_in.units(), 27);
    stand_in.clear_requests();
    assert!(stand_in.requests().is_empty() && stand_in.units() == 0);
    stand_in.shutdown().await;
}

#[tokio::test]
async fn tokens_expire_by_the_clock_by_command_and_with_the_grant() {
    let (stand_in, clock) = start(Options::default()).await;
    let token = stand_in.access_token();
    assert_eq!(get_as(&stand_in, &token, "profile").await.status, 200);
    clock.advance(3599);
    let refused = get_as(&stand_in, &token, "profile").await;
    assert_eq!(refused.reason(), (401, "authError".to_owned()));
    let token = stand_in.access_token();
    stand_in.expire_access_tokens();
    assert_eq!(get_as(&stand_in, &token, "profile").await.status, 401);
    let token = stand_in.access_token();
    stand_in.revoke_grant();
    assert_eq!(get_as(&stand_in, &token, "profile").await.status, 401);
    let refused = post(&stand_in, "/token", REFRESH).await;
    assert_eq!(
        (refused.status, &refused.json()["error"]),
        (400, &json!("invalid_grant"))
    );
    stand_in.set_refresh_token("1//demo-refresh-token");
    assert_eq!(post(&stand_in, "/token", REFRESH).await.status, 200);
    let gone = post(&stand_in, "/revoke", "token=1%2F%2Fdemo-refresh-token").await;
    assert_eq!((gone.status, gone.json()), (200, json!({})));
    assert_eq!(post(&stand_in, "/token", REFRESH).await.status, 400);
}

#[tokio::test]
async fn a_spent_quota_is_refused_until_the_clock_has_moved() {
    for (style, retry_after, expected) in [
        (
            RefusalStyle::Status403,
            false,
            (403, "userRateLimitExceeded"),
        ),
        (RefusalStyle::Status429, true, (429, "rateLimitExceeded")),
    ] {
        let quota = QuotaEnforcement {
            table: QuotaTable::Y2026,
            user_minute: 45,
            style,
            retry_after,
        };
        let (stand_in, clock) = start(Options {
            quota: Some(quota),
            ..Options::default()
        })
        .await;
        let id = stand_in.with_mailbox(|mailbox| mailbox.ids()[0].clone());
        let path = format!("messages/{id}?format=raw");
        assert_eq!(get(&stand_in, &path).await.status, 200);
        assert_eq!(get(&stand_in, &path).await.status, 200);
        let refused = get(&stand_in, &path).await;
        assert_eq!(refused.reason(), (expected.0, expected.1.to_owned()));
        assert_eq!(
            refused.json()["error"]["errors"][0]["domain"],
            "usageLimits"
        );
        assert_eq!(refused.headers.contains("retry-after: 60"), retry_after);
        assert_eq!(get(&stand_in, "messages").await.status, 200);
        clock.advance(60);
        assert_eq!(get(&stand_in, &path).await.status, 200);
        let units: Vec<_> = stand_in.requests().iter().map(|log| log.units).collect();
        assert_eq!(units, [20, 20, 0, 5, 20]);
    }
}

#[tokio::test]
async fn every_fault_reaches_the_client_as_it_says() {
    let (stand_in, _clock) = start(Options::default()).await;
    let whole = get(&stand_in, "profile").await.body.len();
    let mut statuses = Fault::passing();
    statuses.extend(Fault::lasting());
    for fault in statuses {
        stand_in.inject(Match::any(), fault.clone());
        let got = get(&stand_in, "profile").await;
        match fault {
            Fault::Status {
                code,
                reason,
                retry_after_seconds,
            } => {
                assert_eq!(got.reason(), (code, reason.to_owned()));
                let told = got.headers.contains("retry-after");
                assert_eq!(told, retry_after_seconds.is_some());
                assert_eq!(got.declared, got.body.len());
            }
            Fault::TruncatedJson => {
                assert_eq!((got.status, got.declared), (200, whole / 2));
                assert_eq!(got.body.len(), whole / 2);
            }
            Fault::ResetConnection => {
                assert_eq!((got.status, got.declared), (200, whole));
                assert!(got.body.len() < whole);
            }
            Fault::NotJson => assert!(got.status == 200 && got.body.starts_with(b"<!DOCTYPE")),
            Fault::EmptyBody => assert_eq!((got.status, got.body.len()), (200, 0)),
            other => panic!("{other:?} does not pass"),
        }
    }
    for bytes in [2, 3, 70_000, 200_000] {
        stand_in.inject(Match::method(Method::GetProfile), Fault::HugeBody { bytes });
        let got = get(&stand_in, "profile").await;
        assert_eq!(got.body.len() as u64, bytes);
        assert!(got.json().is_string());
    }
    let slowly = Fault::Slow {
        bytes_per_second: 100,
    };
    stand_in.inject(Match::any(), slowly);
    assert_eq!(get(&stand_in, "profile").await.body.len(), whole);
    stand_in.inject(
        Match::method(Method::Token),
        Fault::status(503, "backendError"),
    );
    let got = post(&stand_in, "/token", REFRESH).await;
    assert_eq!(
        (got.status, &got.json()["error"]),
        (503, &json!("internal_failure"))
    );
    assert_eq!(get(&stand_in, "profile").await.status, 200);
}

#[tokio::test]
async fn a_hook_changes_the_mailbox_exactly_between_two_calls() {
    let (stand_in, _clock) = start(Options::default()).await;
    let id = stand_in.with_mailbox(|mailbox| mailbox.ids()[0].clone());
    let victim = id.clone();
    stand_in.on(Match::method(Method::MessagesGet).nth(2), move |mailbox| {
        mailbox.delete(&victim);
        mailbox.expire_history();
    });
    let start = stand_in.with_mailbox(|mailbox| mailbox.history_id());
    let history = format!("history?startHistoryId={start}");
    let path = format!("messages/{id}?format=raw");
    assert_eq!(get(&stand_in, &path).await.status, 200);
    assert_eq!(get(&stand_in, &history).await.status, 200);
    assert_eq!(
        get(&stand_in, &path).await.reason(),
        (404, "notFound".to_owned())
    );
    assert_eq!(
        get(&stand_in, &history).await.reason(),
        (404, "notFound".to_owned())
    );
}

#[tokio::test]
async fn page_tokens_expire_on_command() {
    let (stand_in, _clock) = start(Options::default()).await;
    let page = get(&stand_in, "messages?maxResults=1").await.json();
    let token = page["nextPageToken"].as_str().unwrap();
    let next = format!("messages?maxResults=1&pageToken={token}");
    assert_eq!(get(&stand_in, &next).await.status, 200);
    stand_in.expire_page_tokens();
    assert_eq!(
        get(&stand_in, &next).await.reason(),
        (400, "invalidArgument".to_owned())
    );
}

#[tokio::test]
async fn a_held_method_waits_until_it_is_released() {
    let (stand_in, _clock) = start(Options::default()).await;
    stand_in.hold(Method::MessagesList);
    let calls = async { tokio::join!(get(&stand_in, "messages"), get(&stand_in, "messages")) };
    let test = async {
        stand_in.wait_for_held(Method::MessagesList, 2).await;
        assert_eq!(get(&stand_in, "profile").await.status, 200);
        assert_eq!(stand_in.served(Method::MessagesList), 0);
        stand_in.release(Method::MessagesList);
        stand_in.wait_for(Method::MessagesList, 2).await;
    };
    let ((first, second), ()) = tokio::join!(calls, test);
    assert_eq!((first.status, second.status), (200, 200));
}

#[tokio::test]
async fn a_call_that_hangs_ends_with_the_stand_in() {
    let (stand_in, _clock) = start(Options::default()).await;
    stand_in.inject(Match::any(), Fault::Hang);
    let token = stand_in.access_token();
    let request = format!(
        "GET /gmail/v1/users/me/profile HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    let address = stand_in.base_url().strip_prefix("http://").unwrap();
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(request.as_bytes()).await.unwrap();
    stand_in.wait_for(Method::GetProfile, 1).await;
    assert_eq!(stand_in.requests()[0].status, 0);
    stand_in.shutdown().await;
    let mut bytes = Vec::new();
    connection.read_to_end(&mut bytes).await.unwrap();
    assert!(bytes.starts_with(b"HTTP/1.1 503"));
}

#[tokio::test]
async fn paths_google_does_not_know_get_a_page() {
    let (stand_in, _clock) = start(Options::default()).await;
    let got = get(&stand_in, "nothing").await;
    assert_eq!(got.status, 404);
    assert!(got.body.starts_with(b"<!DOCTYPE"));
}
