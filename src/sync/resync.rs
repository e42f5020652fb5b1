//! The end of a listing that shows everything: what it did not show is erased, and after a resync
//! labels are repaired.
//!
//! A listing that shows far too little is more likely broken than true, so many rows at once are
//! erased only when a second listing agrees or the operator says so. The pages of an inventory may
//! shift while they are read, so of what an inventory lacks nothing is erased before the next one
//! lacks it too.

use std::collections::HashMap;

use fail::fail_point;

use super::{
    batch,
    pages::{self, Next},
    runner::{Active, Stop},
};
use crate::{
    connectors::{Listing, Page, Stream},
    db::{
        Tx, outbox,
        raw_data::{self, Missing},
        sync_cursor,
        sync_listing::{self, Listed},
        sync_run,
    },
    domain::{
        record::{Change, ChangedRecord},
        sync::Outcome,
    },
};

/// So many rows may always be erased at once,
const FEW: i64 = 50;
/// or one in so many.
const SMALL_SHARE: i64 = 20;
/// Rows erased, or looked at for their labels, in one transaction.
const CHUNK: u64 = 100;

/// The error code of a run that found too much missing.
pub(super) const UNCONFIRMED: &str = "mass_deletion_unconfirmed";

/// Takes the last page of a listing and draws its conclusions. `false` where they have to be
/// confirmed first: then the stream ends here, and the next run lists it again.
pub(super) async fn complete(
    active: &mut Active<'_>,
    stream: Stream,
    listing: Listing,
    page: Page,
) -> Result<bool, Stop> {
    let (cursor, again) = (page.next.clone(), page.again.clone());
    pages::take_without_cursor(active, page).await?;
    let tx = begin(active).await?;
    let (integration, run) = (active.claim.integration_id, active.claim.run_id);
    raw_data::forget_missing(&tx, integration, run).await?;
    let missing = raw_data::count_missing(&tx, integration, run, stream.data_type).await?;
    tx.commit().await?;
    let confirmed = active.held.confirm_mass_deletion;
    let enough = may_erase(missing, confirmed);
    let erased = match listing {
        _ if confirmed => Erased::All,
        Listing::Inventory => Erased::Confirmed,
        _ if enough => Erased::All,
        _ => Erased::None,
    };
    while erased != Erased::None && erase_some(active, stream, erased).await? {
        leave_if_interrupted(active)?;
    }
    let waits = match erased {
        Erased::All => false,
        Erased::Confirmed => missing.missing > missing.confirmed,
        Erased::None => true,
    };
    if listing == Listing::Inventory || waits {
        let now = active.engine.clock.now();
        let tx = begin(active).await?;
        raw_data::mark_missing(&tx, integration, run, stream.data_type, now).await?;
        match again {
            _ if !waits => {}
            None => sync_cursor::clear(&tx, integration, stream.name).await?,
            Some(again) => {
                let listing = active.service.connector.listing(&again);
                let again = batch::cursor_of(&active.claim, again, listing);
                sync_cursor::save(&tx, integration, stream.name, &again, now).await?;
            }
        }
        tx.commit().await?;
    }
    if !enough {
        tracing::warn!(
            stream = stream.name,
            missing = missing.missing,
            stored = missing.stored,
            "the listing lacks too many stored records; those that no earlier one lacked stay"
        );
        active.partial = Some(UNCONFIRMED);
    }
    if waits {
        return Ok(false);
    }
    if listing == Listing::Resync {
        let mut after = String::new();
        while let Some(last) = repair_labels(active, &after).await? {
            after = last;
            leave_if_interrupted(active)?;
        }
    }
    pages::move_cursor(active, Some(Next { stream, cursor })).await?;
    Ok(true)
}

/// Takes the last page of a listing that says itself that it does not show everything: nothing is gone for
/// it, but what it showed is there.
pub(super) async fn end_without_conclusion(active: &mut Active<'_>) -> Result<(), Stop> {
    let tx = begin(active).await?;
    raw_data::forget_missing(&tx, active.claim.integration_id, active.claim.run_id).await?;
    tx.commit().await?;
    Ok(())
}

/// Which of the rows that a listing lacks are erased.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Erased {
    All,
    /// Those that an earlier listing lacked too.
    Confirmed,
    None,
}

/// Rows that two listings lack are gone; those that only this one lacks must be few, unless the
/// operator agreed.
fn may_erase(found: Missing, confirmed_by_operator: bool) -> bool {
    let allowed = FEW.max(found.stored / SMALL_SHARE);
    confirmed_by_operator || found.missing - found.confirmed <= allowed
}

fn leave_if_interrupted(active: &Active<'_>) -> Result<(), Stop> {
    active.interrupted().map_or(Ok(()), Err)
}

pub(super) async fn begin(active: &mut Active<'_>) -> Result<Tx, Stop> {
    let tx = active.engine.db.begin().await?;
    active.held = sync_run::fence(&tx, active.claim.run_id, active.claim.fence).await?;
    Ok(tx)
}

/// Erases a chunk of what the listing did not show; says whether there was any.
async fn erase_some(active: &mut Active<'_>, stream: Stream, erased: Erased) -> Result<bool, Stop> {
    let tx = begin(active).await?;
    let (integration, run) = (active.claim.integration_id, active.claim.run_id);
    let only = erased == Erased::Confirmed;
    let rows = raw_data::missing(&tx, integration, run, stream.data_type, only, CHUNK).await?;
    if rows.is_empty() {
        return Ok(false);
    }
    let ids: Vec<_> = rows.iter().map(|(_, stored)| stored.id).collect();
    raw_data::erase(&tx, integration, &ids, active.engine.clock.now()).await?;
    let changed = rows
        .iter()
        .map(|(id, stored)| (stored.changed(id, Change::Deleted), Outcome::Deleted));
    commit_changes(active, tx, changed.collect()).await?;
    Ok(true)
}

/// Looks at a chunk of rows in order of their ids and sets the labels the listing showed; gives the
/// last id looked at.
async fn repair_labels(active: &mut Active<'_>, after: &str) -> Result<Option<String>, Stop> {
    let tx = begin(active).await?;
    let (integration, run) = (active.claim.integration_id, active.claim.run_id);
    let rows = raw_data::listed_labels(&tx, integration, run, after, CHUNK).await?;
    let Some(last) = rows.last().map(|row| row.external_id.clone()) else {
        return Ok(None);
    };
    let mut changed = Vec::new();
    for row in rows {
        let (mut before, mut listed) = (row.stored.labels.clone(), row.listed.clone());
        before.sort_unstable();
        listed.sort_unstable();
        if before == listed {
            continue;
        }
        raw_data::set_labels(&tx, row.stored.id, &row.listed, active.engine.clock.now()).await?;
        changed.push((
            row.stored.changed(&row.external_id, Change::Updated),
            Outcome::Updated,
        ));
    }
    if !changed.is_empty() {
        commit_changes(active, tx, changed).await?;
    }
    Ok(Some(last))
}

/// Counts and tells what changed, and commits.
pub(super) async fn commit_changes(
    active: &mut Active<'_>,
    tx: Tx,
    changed: Vec<(ChangedRecord, Outcome)>,
) -> Result<(), Stop> {
    let run = active.claim.run_id;
    let ids: Vec<String> = changed
        .iter()
        .map(|(record, _)| record.external_id.clone())
        .collect();
    let mut listed: HashMap<String, Listed> = sync_listing::lookup(&tx, run, &ids).await?;
    let mut counts = active.counts.clone();
    for (record, outcome) in &changed {
        let entry = listed.entry(record.external_id.clone()).or_default();
        let after = entry
            .outcome
            .map_or(*outcome, |before| before.then(*outcome));
        counts.count(entry.outcome, after);
        entry.outcome = Some(after);
    }
    sync_listing::save(&tx, run, &listed).await?;
    let records = changed.into_iter().map(|(record, _)| record).collect();
    let now = active.engine.clock.now();
    let events = outbox::append_dna_events(&tx, &active.source, records, now).await?;
    let units = active.quota_units();
    sync_run::save_progress(&tx, run, active.mode, &counts, units, events, true).await?;
    fail_point!("resync.commit");
    tx.commit().await?;
    fail_point!("resync.committed");
    active.counts = counts;
    active.progressed = true;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(stored: i64, missing: i64, confirmed: i64) -> Missing {
        Missing {
            stored,
            missing,
            confirmed,
        }
    }

    #[test]
    fn few_missing_rows_are_erased_at_once() {
        assert!(may_erase(found(100, 50, 0), false));
        assert!(may_erase(found(10_000, 500, 0), false));
    }

    #[test]
    fn many_wait_for_a_second_listing_or_the_operator() {
        assert!(!may_erase(found(100, 51, 0), false));
        assert!(!may_erase(found(10_000, 501, 0), false));
        assert!(may_erase(found(100, 100, 100), false));
        assert!(may_erase(found(100, 100, 0), true));
    }

    #[test]
    fn a_second_listing_confirms_only_what_it_lacks_too() {
        assert!(may_erase(found(1000, 200, 160), false));
        assert!(!may_erase(found(1000, 200, 100), false));
    }
}
