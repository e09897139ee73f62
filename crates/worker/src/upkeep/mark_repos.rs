//! Moves marks of desynchronized repos, which ingest leaves in Redis where no entry carries them, into PostgreSQL.
//!
//! Any worker moves any mark, and one that was moved twice changes nothing.

use std::sync::Arc;
use std::time::Duration;

use crate::action::Action;
use crate::state::work::Work;

/// How often marks are looked for.
const PAUSE: Duration = Duration::from_secs(1);

/// Moves marks until asked to stop.
pub(crate) async fn mark(work: Arc<Work>) {
    while work.rest(PAUSE).await {
        mark_all(&work).await;
    }
}

/// Moves the marks there are; returns whether all of them are in PostgreSQL.
pub(crate) async fn mark_all(work: &Work) -> bool {
    loop {
        let Some(marks) = work.record(Action::ReadMarks, work.consumer.marks().await) else { return false };
        if marks.is_empty() {
            return true;
        }
        let marked = work.record(Action::Mark, work.store.mark_desynchronized(&marks).await);
        let removed = async { work.record(Action::ReadMarks, work.consumer.remove_marks(&marks).await) };
        if marked.is_none() || removed.await.is_none() || work.stop.is_cancelled() {
            return false;
        }
    }
}
