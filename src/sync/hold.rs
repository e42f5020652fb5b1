//! Holding a run: its lease is renewed beside the work, and the wish that it ends is passed on.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::db::{
    Db, DbError,
    sync_run::{self, Claim},
};

/// How often a holder looks whether it is to end.
const LOOK: Duration = Duration::from_secs(1);
/// The first look after so long renews the lease, and each after it until that is done.
const RENEW_AFTER: Duration = Duration::from_secs(10);

/// Renews the lease until the run is another's, and passes on that it is to end. Leases run on the
/// database's clock, so this runs on the machine's.
#[expect(
    clippy::disallowed_methods,
    reason = "leases are not on the program's clock"
)]
pub(crate) async fn hold(db: &Db, claim: &Claim, cancelled: &CancellationToken) {
    let mut renewed = Instant::now();
    loop {
        tokio::time::sleep(LOOK).await;
        // The database's clock goes on while an answer is on its way.
        let asked = Instant::now();
        let is_due = asked - renewed >= RENEW_AFTER;
        let looked = if is_due {
            let held = sync_run::renew(db, claim.run_id, claim.fence).await;
            held.map(|held| held.cancel_requested)
        } else {
            sync_run::cancel_requested(db, claim.run_id).await
        };
        match looked {
            Ok(is_wanted) => {
                if is_due {
                    renewed = asked;
                }
                if is_wanted {
                    cancelled.cancel();
                }
            }
            Err(DbError::Fenced) => {
                match sync_run::is_lost(db, claim.run_id, claim.fence).await {
                    Ok(true) => return,
                    // The work has ended the run, and will say so.
                    Ok(false) => {}
                    Err(error) => warn(&error),
                }
            }
            // The next batch will tell; the lease outlives a short outage.
            Err(error) => warn(&error),
        }
    }
}

fn warn(error: &DbError) {
    tracing::warn!(error = %error, "the lease could not be renewed");
}
