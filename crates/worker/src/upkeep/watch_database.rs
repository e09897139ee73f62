//! Finds out whether PostgreSQL answers, where nothing else shows it.

use std::sync::Arc;
use std::time::Duration;

use penstock_telemetry::admin::CheckHandle;

use crate::state::servers::{POSTGRES, is_unanswered};
use crate::state::work::Work;

/// From how long a silence on it is asked.
const SILENCE: Duration = Duration::from_secs(3);

/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks PostgreSQL over a connection of its own, which is closed again, whenever it has not answered for a while or a request
/// got no answer: a pool says only that there was no connection in time, and a transaction may wait for minutes.
pub(crate) async fn watch(work: Arc<Work>, check: CheckHandle) {
    let server = &work.servers.postgres;
    check.ok();
    loop {
        // Before each look: it may have answered a transaction meanwhile.
        match server.failure() {
            Some(failure) => check.failing(failure),
            None => check.ok(),
        }
        let is_suspected = tokio::select! {
            () = work.stop.cancelled() => return,
            () = work.servers.suspected.notified() => true,
            () = tokio::time::sleep(POSTGRES) => false,
        };
        if !is_suspected && !server.is_away() && server.silent_for() < SILENCE {
            continue;
        }
        let asked = tokio::select! {
            () = work.stop.cancelled() => return,
            asked = tokio::time::timeout(PATIENCE, work.store.ask()) => asked,
        };
        match asked {
            Err(_) => server.failed_because(&format!("no answer within {PATIENCE:?}")),
            Ok(Err(error)) if is_unanswered(&error) => server.failed(&error),
            // One that refuses the connection answers; what it means for a request is told with that.
            Ok(_) => server.answered(),
        }
        if is_suspected && !work.rest(POSTGRES / 4).await {
            return;
        }
    }
}
