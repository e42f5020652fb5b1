//! The program with an account at the stand-in of one service, for what every connector is held to.

use std::collections::{BTreeMap, HashMap, HashSet};

use nucleus::{
    demo::{self, Match, Method},
    domain::ServiceName,
};
use serde_json::{Value, json};

use crate::{
    doubles::{
        github::{self, Github},
        mail, small_mailbox,
    },
    harness::{Setting, TestApp},
};

/// Most items of a page, at every service.
pub const PAGE: usize = 20;

/// Most items got one by one that may have been received and not be stored yet, however large the account
/// is: a batch that is complete and the rest of what it was filled from, what is understood, what is being
/// understood, what waits for that, the one that waits for room there, and what is in flight.
const IN_HAND: usize = 100 + 16 + 16 + 16 + 32 + 1 + 8;

/// Kills before the first batch of a start are attempts that got nowhere.
const ATTEMPTS: &str = "30";

/// The program with an account at the stand-in of one service.
pub struct Rig {
    pub service: ServiceName,
    pub app: TestApp,
    pub integration: String,
    /// None for Gmail, whose stand-in each app has.
    pub github: Option<Github>,
}

/// What goes wrong once, or for as long as it is not calm.
#[derive(Debug, Clone, Copy)]
pub enum Trouble {
    Unauthorized,
    Forbidden,
    /// With Retry-After in seconds.
    TooMany(u32),
    Failing,
    Truncated,
}

impl Rig {
    /// An account with about so many items, in pages of at most [`PAGE`].
    pub async fn start(service: ServiceName, items: usize) -> Self {
        match service {
            ServiceName::Gmail => {
                let app = Setting::new(small_mailbox(items as u64))
                    .variable("NUCLEUS_SYNC__MAX_ATTEMPTS", ATTEMPTS)
                    .options(|options| options.page_size_cap = Some(PAGE))
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
                    account.page_size = PAGE;
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
    pub fn once(&self, trouble: Trouble, after: usize) {
        match &self.github {
            Some(github) => github.inject("/", after, 1, trouble.at_github()),
            None => {
                let matches = Match::method(Method::MessagesGet).nth(after as u32 + 1);
                self.app.google.inject(matches, trouble.at_google());
            }
        }
    }

    /// Lets all requests go wrong.
    pub fn lasting(&self, trouble: Trouble) {
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

    pub fn calm(&self) {
        self.app.google.calm();
        if let Some(github) = &self.github {
            github.calm();
        }
    }

    /// Something of everything happens at the service.
    pub fn change(&self) {
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
            account.review(3, "Well done");
            account.review(3, "");
            account.push("first", 3);
            account.star("new/star");
            account.add_gist();
            account.say("Writes other programs");
        });
    }

    /// What must be stored: what names each record, and what it says.
    pub fn ledger(&self) -> BTreeMap<String, String> {
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
    pub async fn assert_same(&self) {
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

    pub async fn sync(&self) -> Value {
        self.app.sync(&self.integration).await
    }

    pub async fn status(&self) -> Value {
        self.app.integration(&self.integration).await["status"].clone()
    }

    /// Answers that brought items so far.
    pub fn answers(&self) -> usize {
        match &self.github {
            Some(github) => github.answered(),
            None => self.app.google.served(Method::MessagesGet),
        }
    }

    /// Most answers between two kills in an account that is not large: lists bring many items each, gets one.
    pub fn answers_of_a_life(&self) -> usize {
        match self.github {
            Some(_) => 25,
            None => 60,
        }
    }

    /// Most items that may have been received and not be stored yet: where they come with their pages, no
    /// page is asked for before the one before is stored.
    pub fn in_hand(&self) -> usize {
        match self.github {
            Some(_) => PAGE,
            None => IN_HAND,
        }
    }

    pub async fn wait_for_answers(&self, count: usize) {
        match &self.github {
            Some(github) => github.wait_for(count).await,
            None => {
                let google = &self.app.google;
                google.wait_for(Method::MessagesGet, count).await;
            }
        }
    }

    /// The ends of the ids of items received since the last time.
    pub fn received(&self) -> HashSet<String> {
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
