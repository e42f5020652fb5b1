//! Holding a run: its lease is renewed beside the work, and the wish that it ends is passed on.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::db::{
    Db, DbError,
    sync_run::{self, Claim},
};

/// How often a holder looks whether it is to end; each tenth look renews the lease.
const LOOK: Duration = Duration::from_secs(1);

/// Renews the lease until the run is another's, and passes on that it is to end. Leases run on the
/// database's clock, so this runs on the machine's.
#[expect(
    clippy::disallowed_methods,
    reason = "leases are not on the program's clock"
)]
pub(crate) async fn hold(db: &Db, claim: &Claim, cancelled: &CancellationToken) {
    let mut looks = 0_u32;
    loop {
        tokio::time::sleep(LOOK).await;
        looks += 1;
        let held = if looks.is_multiple_of(10) {
            sync_run::renew(db, claim.run_id, claim.fence)
                .await
                .map(|held| held.cancel_requested)
        } else {
            sync_run::cancel_requested(db, claim.run_id).await
        };
        match held {
            Ok(true) => cancelled.cancel(),
            Ok(false) => {}
            Err(DbError::Fenced) => return,
            // The next batch will tell; the lease outlives a short outage.
            Err(error) => tracing::warn!(error = %error, "the lease could not be renewed"),
        }
    }
}
