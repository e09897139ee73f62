//! The sizes of everything that can grow, in PostgreSQL and in Redis, as metrics.
//!
//! Each worker asks: the answers come from the servers' own books and read no table, and any one of them can be asked.

use std::sync::Arc;
use std::time::Duration;

use crate::action::Action;
use crate::state::work::Work;
use crate::store::StoreError;

/// How often it is asked.
const INTERVAL: Duration = Duration::from_secs(60);

/// Measures tables and keys at a fixed interval.
pub(crate) async fn measure(work: Arc<Work>) {
    loop {
        let sizes = async { Ok::<_, StoreError>((work.store.table_sizes().await?, work.store.database_size().await?)) };
        if let Some((tables, database)) = work.record(Action::Measure, sizes.await) {
            work.events.table_sizes(&tables);
            work.events.database_size(database);
        }
        if let Some(keys) = work.record(Action::MeasureKeys, work.consumer.key_sizes().await) {
            work.events.key_sizes(&keys);
        }
        if !work.rest(INTERVAL).await {
            return;
        }
    }
}
