//! What every connector is held to, whatever its service: each test goes through the registry, and a
//! connector for which there is no stand-in here fails all of them.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::TimeDelta;
use nucleus::{
    connectors,
    demo::{self, Match, Method},
    domain::{Clock, QuotaTable, ServiceName},
    worker,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    doubles::{
        github::{self, Github},
        mail, small_mailbox,
    },
    harness::{Setting, TestApp},
    kills::seed,
};

/// Items of an account that is neither empty nor large.
const SOME: usize = 60;
/// Most items that may have been received and not be stored yet, however large the account is: a
/// batch that is complete, what waits to be understood, is being understood and is understood, and
/// what is in flight; or a page that comes with its items.
const IN_HAND: usize = 100 + 16 + 32 + 16 + 16 + 8;

/// Kills before the first batch of a start are attempts that got nowhere.
const ATTEMPTS: &str = "30";

/// The program with an account at the stand-in of one service.
struct Rig {
    service: ServiceName,
    app: TestApp,
    integration: String,
    /// None for Gmail, whose stand-in each app has.
    github: Option<Github>,
}

/// What goes wrong once, or for as long as it is not calm.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    Unauthorized,
    Forbidden,
    /// With Retry-After in seconds.
    TooMany(u32),
    Failing,
    Truncated,
}

impl Rig {
    /// An account with about so many items, in pages of at most 20.
    async fn start(service: ServiceName, items: usize) -> Self {
        match service {
            ServiceName::Gmail => {
                let app = Setting::new(small_mailbox(items as u64))
                    .variable("NUCLEUS_SYNC__MAX_ATTEMPTS", ATTEMPTS)
                    .options(|options| options.page_size_cap = Some(20))
                    .start()
                    .await;
                let integration = app.connect().await;
                Self {
                    service,
                    app,
                    integration,
                    github: None,
                }
            }
            ServiceName::Github => {
                let (app, github) = with_github(|account| {
                    account.page_size = 20;
                    fill(account, items);
                })
                .await;
                let integration = connect_github(&app).await;
                Self {
                    service,
                    app,
                    integration,
                    github: Some(github),
                }
            }
            other => {
                panic!("{other} has no stand-in: give it one here, and it is held to the rest")
            }
        }
    }

    /// Lets one of the requests that bring items go wrong, after `after` others.
    fn once(&self, trouble: Trouble, after: usize) {
        match &self.github {
            Some(github) => github.inject("/", after, 1, trouble.at_github()),
            None => {
                let matches = Match::method(Method::MessagesGet).nth(after as u32 + 1);
                self.app.google.inject(matches, trouble.at_google());
            }
        }
    }

    /// Lets all requests go wrong.
    fn lasting(&self, trouble: Trouble) {
        match &self.github {
            Some(github) => github.inject("/", 0, usize::MAX, trouble.at_github()),
            None => {
                for method in [
                    Method::GetProfile,
                    Method::MessagesList,
                    Method::HistoryList,
                ] {
                    let matches = Match::method(method);
                    let times = u32::MAX;
                    self.app
                        .google
                        .inject_times(matches, trouble.at_google(), times);
                }
            }
        }
    }

    fn calm(&self) {
        self.app.google.calm();
        if let Some(github) = &self.github {
            github.calm();
        }
    }

    /// Something of everything happens at the service.
    fn change(&self) {
        let Some(github) = &self.github else {
            self.app.google.with_mailbox(|mailbox| {
                let ids = mailbox.ids();
                mailbox.deliver(mail(1), &["INBOX"]);
                mailbox.delete(&ids[0]);
                mailbox.relabel(&ids[1], &["STARRED"], &[]);
            });
            return;
        };
        github.with(|account| {
            account.add_issue("first", true, 2);
            account.edit_issue(1);
            account.comment(2, false);
            account.push("first", 3);
            account.star("new/star");
            account.add_gist();
            account.say("Writes other programs");
        });
    }

    /// What must be stored: what names each record, and what it says.
    fn ledger(&self) -> BTreeMap<String, String> {
        match &self.github {
            Some(github) => github.with(|account| account.ledger()),
            None => {
                let ledger = self.app.ledger().into_iter();
                ledger.map(|(id, (sha256, _))| (id, sha256)).collect()
            }
        }
    }

    /// Fails unless each item is stored once as the service has it, nothing else is, and the events say
    /// the same.
    async fn assert_same(&self) {
        let mut expected = self.ledger();
        let mut rows = HashMap::new();
        for record in self.app.records(&self.integration).await {
            let id = record["external_id"].as_str().unwrap().to_owned();
            let row = record["id"].as_str().unwrap().to_owned();
            let service = self.service;
            let says = expected
                .remove(&id)
                .unwrap_or_else(|| panic!("{service}: {id} is stored twice or is not there"));
            let text = match self.github {
                Some(_) => record["data_content"].as_str().unwrap(),
                None => record["meta_data"]["sha256"].as_str().unwrap(),
            };
            assert!(text.contains(&says), "{id} says {text:?}, not {says:?}");
            assert_eq!(record["meta_data"]["trust"], "untrusted_external");
            rows.insert(row, id);
        }
        assert!(expected.is_empty(), "{}: lost {expected:?}", self.service);
        let mut told = self.app.told(&self.integration).await;
        told.retain(|_, change| change != "deleted");
        let told: HashSet<&String> = told.keys().collect();
        let rows: HashSet<&String> = rows.keys().collect();
        assert_eq!(told, rows, "{}: events and records", self.service);
    }

    async fn sync(&self) -> Value {
        self.app.sync(&self.integration).await
    }

    async fn status(&self) -> Value {
        self.app.integration(&self.integration).await["status"].clone()
    }

    /// Answers that brought items so far.
    fn answers(&self) -> usize {
        match &self.github {
            Some(github) => github.answered(),
            None => self.app.google.served(Method::MessagesGet),
        }
    }

    /// Most answers between two kills: lists bring many items each, gets one.
    fn answers_of_a_life(&self) -> usize {
        match self.github {
            Some(_) => 25,
            None => 60,
        }
    }

    async fn wait_for_answers(&self, count: usize) {
        match &self.github {
            Some(github) => github.wait_for(count).await,
            None => {
                let google = &self.app.google;
                google.wait_for(Method::MessagesGet, count).await;
            }
        }
    }

    /// The ends of the ids of items received since the last time.
    fn received(&self) -> HashSet<String> {
        match &self.github {
            Some(github) => github
                .asked()
                .into_iter()
                .flat_map(|asked| asked.items)
                .collect(),
            None => {
                let log = self.app.google.requests();
                self.app.google.clear_requests();
                log.into_iter()
                    .filter(|request| request.status == 200)
                    .filter_map(|request| request.id)
                    .collect()
            }
        }
    }
}

impl Trouble {
    fn at_google(self) -> demo::Fault {
        match self {
            Self::Unauthorized => demo::Fault::status(401, "authError"),
            Self::Forbidden => demo::Fault::status(403, "insufficientPermissions"),
            Self::TooMany(seconds) => demo::Fault::retry_after(seconds),
            Self::Failing => demo::Fault::status(502, "backendError"),
            Self::Truncated => demo::Fault::TruncatedJson,
        }
    }

    fn at_github(self) -> github::Fault {
        match self {
            Self::Unauthorized => github::Fault::status(401),
            Self::Forbidden => github::Fault::status(403),
            Self::TooMany(seconds) => {
                let fields = vec![("retry-after", seconds.to_string())];
                github::Fault::Status(429, fields, "You have exceeded a secondary rate limit")
            }
            Self::Failing => github::Fault::status(502),
            Self::Truncated => github::Fault::Truncated,
        }
    }
}

/// An app whose GitHub is a stand-in with what `fill` gives the account.
pub async fn with_github(fill: impl FnOnce(&mut github::Account)) -> (TestApp, Github) {
    let clock = crate::test_clock::TestClock::new();
    let github = Github::start(clock).await;
    github.with(fill);
    let mut setting =
        Setting::new(small_mailbox(0)).variable("NUCLEUS_SYNC__MAX_ATTEMPTS", ATTEMPTS);
    for (name, value) in github.variables() {
        setting = setting.variable(name, value);
    }
    let app = setting.start().await;
    github.follow(app.clock.clone());
    (app, github)
}

/// Connects the stand-in's account for a new entity.
pub async fn connect_github(app: &TestApp) -> String {
    let body = json!({
        "entity_id": app.entity().await,
        "service_name": "github",
        "credential_type": "oauth2",
        "credentials": {"refresh_token": github::REFRESH_TOKEN},
    });
    let integration = app.post("/integrations/", body).await;
    integration["id"].as_str().unwrap().to_owned()
}

/// About so many items of all kinds; none but the profile for none.
fn fill(account: &mut github::Account, items: usize) {
    if items == 0 {
        return;
    }
    account.add_repository("first", items / 5);
    account.add_repository("second", 1);
    account.add_repository("empty", 0);
    for number in 1..=items / 5 {
        account.add_issue("first", number % 3 == 0, number % 3);
        account.star(&format!("somebody/{number}"));
        account.comment(number as u64, number % 3 == 0);
    }
    for _ in 0..items.div_ceil(60) {
        account.add_gist();
    }
}

/// Items of the account that is killed again and again, from `NUCLEUS_CONTRACT_ITEMS` or so many that it
/// takes seconds.
#[expect(
    clippy::disallowed_methods,
    reason = "the tester's own variable, not the program's"
)]
fn many() -> usize {
    let given = std::env::var("NUCLEUS_CONTRACT_ITEMS").ok();
    given.map_or(300, |text| text.parse().unwrap())
}

/// Every service that has a connector.
fn services() -> Vec<ServiceName> {
    let registry = connectors::registry(QuotaTable::OFF, 8);
    assert!(registry.len() > 1, "the contract is asked of nobody");
    registry.into_keys().collect()
}

fn assert_success(run: &Value) {
    assert_eq!(run["status"], "success", "{run}");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_stored_once_over_many_pages_and_then_nothing_is_new() {
    for service in services() {
        let rig = Rig::start(service, SOME).await;
        let run = rig.sync().await;
        assert_success(&run);
        assert_eq!(run["mode"], "full", "{run}");
        assert_eq!(run["counts"]["stored"], rig.ledger().len(), "{run}");
        rig.assert_same().await;
        let run = rig.sync().await;
        assert_success(&run);
        assert_eq!(run["mode"], "incremental", "{run}");
        assert_eq!(run["counts"]["listed"], 0, "{service}: {run}");
        assert_eq!(
            (&run["counts"]["fetched"], &run["events"]),
            (&json!(0), &json!(0))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_is_followed_and_no_more_is_written() {
    for service in services() {
        let rig = Rig::start(service, SOME).await;
        assert_success(&rig.sync().await);
        rig.change();
        let run = rig.sync().await;
        assert_success(&run);
        rig.assert_same().await;
        let written = |name: &str| run["counts"][name].as_u64().unwrap();
        let written = written("stored") + written("updated") + written("deleted");
        assert!((3..15).contains(&written), "{service}: {run}");
        assert_eq!(rig.sync().await["counts"]["listed"], 0, "{service}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_account_is_a_success() {
    for service in services() {
        let rig = Rig::start(service, 0).await;
        for _ in 0..2 {
            assert_success(&rig.sync().await);
            rig.assert_same().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_is_replaced_and_one_that_is_refused_again_ends_the_connection() {
    for service in services() {
        let rig = Rig::start(service, SOME).await;
        rig.once(Trouble::Unauthorized, 3);
        assert_success(&rig.sync().await);
        rig.assert_same().await;
        rig.lasting(Trouble::Unauthorized);
        let run = rig.sync().await;
        assert_eq!(
            (&run["status"], &run["error"]["code"]),
            (&json!("failed"), &json!("access_revoked")),
            "{service}: {run}"
        );
        assert_eq!(rig.status().await, "revoked", "{service}");
        rig.calm();
        rig.assert_same().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forbidden_fails_the_run_with_a_reason_that_says_the_mend() {
    for service in services() {
        let rig = Rig::start(service, SOME).await;
        rig.lasting(Trouble::Forbidden);
        let run = rig.sync().await;
        assert_eq!(
            (&run["status"], &run["error"]["code"]),
            (&json!("failed"), &json!("insufficient_permissions")),
            "{service}: {run}"
        );
        assert!(
            run["error"]["detail"].as_str().unwrap().contains("connect"),
            "{run}"
        );
        assert_eq!(rig.status().await, "error", "{service}");
        rig.calm();
        assert_success(&rig.sync().await);
        rig.assert_same().await;
        assert_eq!(rig.status().await, "active", "{service}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_for_its_rate_is_waited_out_as_long_as_the_service_says() {
    for service in services() {
        for seconds in [30, 3600] {
            let rig = Rig::start(service, SOME).await;
            rig.once(Trouble::TooMany(seconds), 5);
            let before = rig.app.clock.now();
            let run = rig.sync().await;
            assert_success(&run);
            let waited = rig.app.clock.now() - before;
            assert!(
                waited >= TimeDelta::seconds(seconds.into()),
                "{service}: {waited}"
            );
            rig.assert_same().await;
            let runs = format!("/integrations/{}/runs", rig.integration);
            assert_eq!(rig.app.all(&runs).await.len(), 1);
            assert_eq!(rig.status().await, "active", "{service}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_that_pass_are_not_noticed() {
    for service in services() {
        for trouble in [Trouble::Failing, Trouble::Truncated] {
            for after in [0, 4, 11] {
                let rig = Rig::start(service, SOME).await;
                rig.once(trouble, after);
                assert_success(&rig.sync().await);
                rig.assert_same().await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_changes_no_status_and_heals() {
    for service in services() {
        let rig = Rig::start(service, SOME).await;
        assert_success(&rig.sync().await);
        rig.change();
        for trouble in [Trouble::Failing, Trouble::Truncated] {
            rig.lasting(trouble);
            let run = rig.sync().await;
            assert_eq!(
                (&run["status"], &run["error"]["code"]),
                (&json!("failed"), &json!("unavailable")),
                "{service}: {run}"
            );
            assert_eq!(rig.status().await, "active", "{service}");
            rig.calm();
        }
        assert_success(&rig.sync().await);
        rig.assert_same().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_is_not_accepted_heals_by_a_listing_that_changes_nothing() {
    for service in services() {
        let rig = Rig::start(service, SOME).await;
        assert_success(&rig.sync().await);
        rig.change();
        match &rig.github {
            // GitHub's cursors do not expire; another version's are not accepted.
            Some(_) => {
                let forget = |table| {
                    format!("UPDATE {table} SET cursor_value = '{{\"other\": 1}}' RETURNING stream")
                };
                let (sqlite, postgres) = (forget("sync_cursors"), forget("dna.sync_cursors"));
                let forgotten = rig.app.rows(&sqlite, &postgres).await;
                assert!(forgotten.len() > 1, "{forgotten:?}");
            }
            None => rig.app.google.with_mailbox(demo::Mailbox::expire_history),
        }
        let run = rig.sync().await;
        assert_success(&run);
        assert_eq!(run["mode"], "resync", "{service}");
        rig.assert_same().await;
        let written = |name: &str| run["counts"][name].as_u64().unwrap();
        assert!(
            written("stored") + written("updated") < 20,
            "{service}: {run}"
        );
        let run = rig.sync().await;
        assert_eq!(
            (&run["mode"], &run["counts"]["listed"]),
            (&json!("incremental"), &json!(0))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_told_to_end_in_the_middle_of_a_page_leaves_the_rest_to_the_next() {
    for service in services() {
        for answers in [1, 7, 15] {
            let rig = Rig::start(service, SOME).await;
            let run = rig.app.request_sync(&rig.integration).await;
            let shutdown = CancellationToken::new();
            let ending = async {
                rig.wait_for_answers(answers).await;
                shutdown.cancel();
            };
            let (drained, ()) = tokio::join!(worker::drain(&rig.app.app, &shutdown), ending);
            drained.unwrap();
            let left = rig.app.get(&format!("/runs/{run}")).await;
            assert_eq!(left["status"], "queued", "{service}: {left}");
            rig.app.drain().await;
            let ended = rig.app.get(&format!("/runs/{run}")).await;
            assert_success(&ended);
            assert_eq!(ended["counts"]["stored"], rig.ledger().len(), "{ended}");
            rig.assert_same().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_random_lose_and_double_nothing_and_what_is_in_hand_is_bounded() {
    let seed = seed();
    for service in services() {
        let mut random = StdRng::seed_from_u64(seed);
        let mut rig = Rig::start(service, many()).await;
        let run = rig.app.request_sync(&rig.integration).await;
        let (mut kills, mut most) = (0, 0);
        loop {
            rig.received();
            let until = rig.answers() + random.random_range(1..rig.answers_of_a_life());
            let killed = tokio::select! {
                () = rig.app.drain() => false,
                () = rig.wait_for_answers(until) => true,
            };
            if !killed {
                break;
            }
            kills += 1;
            rig.app.restart().await;
            let stored = rig.app.records(&rig.integration).await;
            let stored: HashSet<&str> = stored
                .iter()
                .map(|record| {
                    let id = record["external_id"].as_str().unwrap();
                    id.rsplit(':').next().unwrap()
                })
                .collect();
            let received = rig.received();
            let in_hand = received
                .iter()
                .filter(|id| !stored.contains(id.as_str()))
                .count();
            most = most.max(in_hand);
            assert!(
                in_hand <= IN_HAND,
                "{service}: {in_hand} items received, not stored"
            );
        }
        assert!(kills >= 5, "{service}: {kills} kills prove nothing");
        let ended = rig.app.get(&format!("/runs/{run}")).await;
        assert_success(&ended);
        assert_eq!(ended["counts"]["stored"], rig.ledger().len(), "{ended}");
        rig.assert_same().await;
        assert_success(&rig.sync().await);
        rig.assert_same().await;
        assert!(most > 0, "{service}: no kill met an item in hand");
    }
}
