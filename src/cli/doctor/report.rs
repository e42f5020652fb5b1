//! What the doctor has found: lines for people as they come, or one object at the end.

use anyhow::bail;
use serde::Serialize;

use crate::{cli::say, domain::ServiceName, telemetry::one_line};

/// What is looked at, by the names that the object gives, with what each asks.
pub const PARTS: &[(&str, &str)] = &[
    (
        "configuration",
        "whether it is valid, and what it is warned of",
    ),
    (
        "data_dir",
        "whether the data folder is there, takes files, and is nobody else's",
    ),
    (
        "disk",
        "how much room there is where the data and the database are",
    ),
    ("lock", "whether an `up` has the data folder"),
    (
        "database",
        "whether it answers, takes writes, and keeps what it has committed",
    ),
    (
        "connections",
        "whether PostgreSQL has room for the connections of one more process",
    ),
    ("schema", "whether it is the one this program needs"),
    ("integrity", "SQLite's own check of files up to 1 GiB"),
    (
        "vault",
        "whether the key fits and what is sealed can be opened",
    ),
    (
        "secret_manager",
        "in place of `vault`, where credentials are kept there: whether it answers, and lets this process list, read, add and destroy versions",
    ),
    (
        "credentials",
        "whether those of the newest 1,000 integrations can be read",
    ),
    ("operator_key", "whether the operator can call the API"),
    (
        "broker",
        "whether the topics and subscriptions are there and set up to lose nothing; `--create` makes those that are not",
    ),
    ("traces", "whether the OpenTelemetry collector takes traces"),
    (
        "api",
        "whether the API answers on this machine, and is ready",
    ),
    (
        "public_url",
        "whether browsers can be sent back to it: https, or this machine",
    ),
    (
        "queue",
        "whether sync requests, or events that are to be published, wait for more than ten minutes",
    ),
    ("schedule", "whether syncs are overdue"),
    ("runs", "whether runs are left by workers that are gone"),
    ("dead_letters", "what was given up"),
    (
        "secret_intents",
        "whether versions of secrets wait to be destroyed",
    ),
    (
        "integrations",
        "which are `error`, `expired` or `revoked`, or failed last",
    ),
    ("consents", "whether consents end within 14 days"),
    (
        "revocations",
        "whether grants stand that a service was asked to revoke",
    ),
    ("client", "whether the service accepts the OAuth client"),
    (
        "redirect_uri",
        "what is to be registered with the service, letter by letter",
    ),
    ("token_endpoint", "whether it answers"),
    ("api_url", "whether the service's API answers"),
    (
        "clock",
        "whether this machine's clock is the service's, and the database's",
    ),
];

/// How a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    /// Well.
    Ok,
    /// It works, and somebody should look.
    Warn,
    /// It does not work.
    Fail,
    /// It could not be looked at, or there is nothing to look at; the detail says why.
    Skip,
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Skip => "skip",
        }
    }
}

/// One finding.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    name: &'static str,
    service_name: Option<ServiceName>,
    status: Status,
    detail: String,
    mend: Option<String>,
}

impl Check {
    fn new(name: &'static str, status: Status, detail: String, mend: Option<String>) -> Self {
        Self {
            name,
            service_name: None,
            status,
            detail,
            mend,
        }
    }

    pub(super) fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self::new(name, Status::Ok, detail.into(), None)
    }

    pub(super) fn skip(name: &'static str, detail: impl Into<String>) -> Self {
        Self::new(name, Status::Skip, detail.into(), None)
    }

    pub(super) fn warn(
        name: &'static str,
        detail: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self::new(name, Status::Warn, detail.into(), Some(mend.into()))
    }

    pub(super) fn fail(
        name: &'static str,
        detail: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self::new(name, Status::Fail, detail.into(), Some(mend.into()))
    }

    /// A failure whose text says, after a colon or a semicolon, how it is mended.
    pub(super) fn fail_as_told(name: &'static str, text: &str) -> Self {
        let parts = text.split_once(": ").or_else(|| text.split_once("; "));
        let (detail, mend) = parts.unwrap_or((text, "the log of the process says more"));
        Self::fail(name, detail, mend)
    }

    /// It is about this service.
    pub(super) fn of(mut self, service: ServiceName) -> Self {
        self.service_name = Some(service);
        self
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> Status {
        self.status
    }

    fn lines(&self) -> String {
        let name = match self.service_name {
            Some(service) => format!("{} {service}", self.name),
            None => self.name.to_owned(),
        };
        let detail = one_line(&self.detail);
        let mut text = format!("{:4}  {name:24}  {detail}", self.status.as_str());
        if let Some(mend) = &self.mend {
            text.push_str(&format!("\n{:32}mend: {}", "", one_line(mend)));
        }
        text
    }
}

/// Everything that was found.
pub(super) struct Report {
    is_json: bool,
    checks: Vec<Check>,
}

#[derive(Serialize)]
struct Object<'a> {
    version: &'static str,
    status: Status,
    checks: &'a [Check],
}

impl Report {
    pub(super) fn new(is_json: bool) -> Self {
        Self {
            is_json,
            checks: Vec::new(),
        }
    }

    pub(super) fn is_json(&self) -> bool {
        self.is_json
    }

    /// Adds a finding, and shows it to people at once.
    pub(super) fn add(&mut self, check: Check) {
        if !self.is_json {
            say(&check.lines());
        }
        self.checks.push(check);
    }

    /// Shows the end of it. An error if something does not work.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        let count = |status| {
            let checks = self.checks.iter();
            checks.filter(|check| check.status == status).count()
        };
        let (failures, warnings) = (count(Status::Fail), count(Status::Warn));
        if self.is_json {
            say(&serde_json::to_string(&Object {
                version: env!("CARGO_PKG_VERSION"),
                status: match (failures, warnings) {
                    (0, 0) => Status::Ok,
                    (0, _) => Status::Warn,
                    _ => Status::Fail,
                },
                checks: &self.checks,
            })?);
        } else {
            let (well, skipped) = (count(Status::Ok), count(Status::Skip));
            say(&format!(
                "{well} ok, {warnings} to look at, {failures} failed, {skipped} not checked"
            ));
        }
        match failures {
            0 => Ok(()),
            1 => bail!("1 check failed"),
            _ => bail!("{failures} checks failed"),
        }
    }
}
