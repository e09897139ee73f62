//! Detects that two live workers have the same name, and so act for each other.

use std::sync::Arc;
use std::time::Instant;

use penstock_core::servers::{Circumstances, Failing};

use crate::state::work::Work;

/// Announces three times per claim time that this process uses its name, and logs when another one does too.
///
/// Nothing is lost or doubled by that; but each may hand back and leave for the other.
pub(crate) async fn announce(work: Arc<Work>) {
    let claim_time = work.settings.worker.claim_time;
    let process = format!("{:016x}", rand::random::<u64>());
    let mut is_known = false;
    let mut shared = Failing::default();
    loop {
        // Whoever had the name before us may have died: only who comes back lives. A Redis that is away others tell of.
        if let Ok(last) = work.consumer.announce(&process, claim_time).await {
            if is_known && last.is_some_and(|last| last != process) {
                if shared.failed(Instant::now(), Circumstances { is_away: false, is_unanswered: false }).is_some() {
                    work.events.name_shared(work.consumer.name());
                }
            } else {
                shared.over(Instant::now());
            }
            is_known = true;
        }
        if !work.rest(claim_time / 3).await {
            return;
        }
    }
}
