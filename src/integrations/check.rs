//! Asks a service how a connection stands: whose the credentials are, and whether they still are any.
//!
//! What a sync asks about needs no other question. Connections without a connector are asked about once
//! a day, which keeps refresh tokens alive that end when nobody uses them; and ended ones at growing
//! intervals, because services have said by mistake that a grant was gone.

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::{StreamExt, stream};

use super::{Integrations, named};
use crate::{
    db::{
        DbError,
        integration::{self, Integration},
        standing::{self, CHECK_EVERY},
    },
    domain::{
        audit::{Action, Interface, Origin},
        errors,
        sync::IntegrationStatus,
    },
    oauth::{
        account::{AccountError, Known},
        tokens::{TokenError, UnknownAccount},
    },
};

/// Checks taken up at once.
const TAKE: u64 = 50;
/// Services asked at once.
const AT_ONCE: usize = 8;
/// A connection that ended so long ago is not asked about any more.
const GIVEN_UP_AFTER: TimeDelta = TimeDelta::days(60);

/// What a service said.
#[derive(Debug)]
pub struct Checked {
    /// The account that the credentials belong to, if the service said so.
    pub account: Option<String>,
    /// Why the credentials are not valid; absent where they are, and are those of the integration's
    /// account.
    pub reason: Option<String>,
}

impl Integrations {
    /// Asks the service whose an integration's credentials are, and writes down what that says of the
    /// connection. An outage says nothing.
    pub async fn check(&self, found: &Integration) -> Result<Checked, DbError> {
        if found.access_ended_at.is_some() {
            return Ok(Checked {
                account: None,
                reason: Some("the operator ended the access: connect the account again".to_owned()),
            });
        }
        let answer = self.tokens.account_of(found).await;
        let (status, reason) = meaning(found, &answer);
        self.write_standing(found, &answer, status, reason.as_deref())
            .await?;
        Ok(Checked {
            account: answer.ok().map(|known| known.account.name),
            reason,
        })
    }

    async fn write_standing(
        &self,
        found: &Integration,
        answer: &Result<Known, UnknownAccount>,
        status: Option<IntegrationStatus>,
        reason: Option<&str>,
    ) -> Result<(), DbError> {
        let now = self.clock.now();
        if let Some(status) = status.filter(|status| found.status != status.as_str()) {
            let tx = self.db.begin().await?;
            if standing::set_status(&tx, found, status, reason, now).await? {
                self.write_down(&tx, found, Action::IntegrationChange)
                    .await?;
            }
            tx.commit().await?;
        }
        if let (Ok(known), None) = (answer, reason)
            && !found.account_verified
        {
            let tx = self.db.begin().await?;
            if standing::has_same_credentials(&tx, found).await? {
                integration::set_account(&tx, found.id, named(&known.account), now).await?;
                // That it was not tested.
                integration::set_message(&tx, found.id, None).await?;
                self.write_down(&tx, found, Action::IntegrationChange)
                    .await?;
            }
            tx.commit().await?;
        }
        Ok(())
    }

    /// Checks every connection whose time has come; says how many. Of several processes one checks each.
    pub async fn check_due(&self) -> Result<usize, DbError> {
        let mut checked = 0;
        loop {
            let now = self.clock.now();
            let due = standing::due_checks(&self.db, now, TAKE).await?;
            let is_last = (due.len() as u64) < TAKE;
            let mut taken = Vec::new();
            for found in due {
                let tx = self.db.begin().await?;
                if standing::move_next_check(&tx, &found, next_check(&found, now)?).await? {
                    tx.commit().await?;
                    taken.push(found);
                }
            }
            checked += taken.len();
            let origin = Origin::system(Interface::Scheduler);
            let checks = stream::iter(&taken).for_each_concurrent(AT_ONCE, async |found| {
                match self.check(found).await {
                    Ok(Checked { reason: Some(reason), .. }) => {
                        tracing::info!(integration.id = %found.id, reason, "a connection does not work");
                    }
                    Ok(_) => {}
                    Err(error) => {
                        let error = errors::chain(&error);
                        tracing::warn!(integration.id = %found.id, error, "a connection was not checked");
                    }
                }
            });
            origin.scope(checks).await;
            if is_last {
                return Ok(checked);
            }
        }
    }
}

/// When a connection that is checked now is checked again. One that has ended is asked about after a day,
/// and then whenever it has been ended for twice as long.
fn next_check(found: &Integration, now: DateTime<Utc>) -> Result<Option<DateTime<Utc>>, DbError> {
    let status = found.status()?;
    if status.is_ended() {
        let ended_for = now - found.updated_at;
        let goes_on = ended_for < GIVEN_UP_AFTER;
        return Ok(goes_on.then(|| now + ended_for.max(CHECK_EVERY)));
    }
    let goes_on = status.may_sync() && found.next_sync_at.is_none();
    Ok(goes_on.then(|| now + CHECK_EVERY))
}

/// What an answer says of a connection, and why its credentials are not valid.
fn meaning(
    found: &Integration,
    answer: &Result<Known, UnknownAccount>,
) -> (Option<IntegrationStatus>, Option<String>) {
    let error = match answer {
        Ok(Known { account, .. }) if found.account.as_ref().is_some_and(|id| *id != account.id) => {
            let reason = format!(
                "the credentials are those of {}, but the integration holds the records of {}",
                account.name,
                found.account_shown().unwrap_or_default()
            );
            return (None, Some(reason));
        }
        Ok(_) => return (Some(IntegrationStatus::Active), None),
        Err(error) => error,
    };
    let status = match error {
        UnknownAccount::Token(TokenError::Expired(_) | TokenError::Lost(_)) => {
            Some(IntegrationStatus::Expired)
        }
        UnknownAccount::Token(TokenError::Revoked(_)) => Some(IntegrationStatus::Revoked),
        // A connection that has ended stays so until it works.
        _ if found.status().is_ok_and(IntegrationStatus::is_ended) => None,
        UnknownAccount::Token(TokenError::ClientRefused(_) | TokenError::Credentials(_))
        | UnknownAccount::Account(AccountError::Refused(_)) => Some(IntegrationStatus::Error),
        // An outage says nothing.
        UnknownAccount::Token(TokenError::Unavailable(_)) | UnknownAccount::Account(_) => None,
    };
    (status, Some(error.to_string()))
}
