//! Checks handles that may have changed, both ways, and those that were not valid again; only where identities are resolved.

use std::sync::Arc;
use std::time::Duration;

use penstock_identity::{Handle, Identities, ResolveError};
use tokio::task::{JoinError, JoinSet};

use crate::action::Action;
use crate::state::work::Work;
use crate::store::{Checked, HandleCheck};

/// How often checks are looked for.
const INTERVAL: Duration = Duration::from_secs(1);

/// How many handles are checked at a time.
const AT_ONCE: usize = 64;

/// Checks handles until asked to stop.
///
/// # Errors
/// A check panicked.
pub(crate) async fn check(work: Arc<Work>, identities: Identities) -> Result<(), JoinError> {
    let mut checks: JoinSet<(HandleCheck, Checked)> = JoinSet::new();
    loop {
        let taken = work.store.take_handle_checks(AT_ONCE.saturating_sub(checks.len())).await;
        for check in work.record(Action::CheckHandles, taken).unwrap_or_default() {
            let identities = identities.clone();
            checks.spawn(async move {
                let checked = ask(&identities, &check.did).await;
                (check, checked)
            });
        }
        // What was not settled when the worker ends is due again after its two minutes.
        tokio::select! {
            biased;
            () = work.stop.cancelled() => return Ok(()),
            Some(checked) = checks.join_next() => {
                let (check, checked) = checked?;
                let settled = work.store.settle_handle_check(&check, &checked).await;
                if work.record(Action::CheckHandles, settled).is_some() {
                    work.events.handle_checked(&check.did, &checked);
                }
            }
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// Resolves a handle both ways by a new document. An account without a document has no valid handle.
async fn ask(identities: &Identities, did: &str) -> Checked {
    identities.invalidate(did).await;
    match identities.handle(did).await {
        Ok(Handle::Valid(handle)) => Checked::Valid(handle.into()),
        Ok(Handle::Invalid) | Err(ResolveError::NotFound | ResolveError::Tombstoned) => Checked::Invalid,
        Err(error) => Checked::Unknown(error.to_string()),
    }
}
