//! Up to which event everything is settled, kept in PostgreSQL: where ingest resumes should Redis be lost.
//!
//! Workers take turns by a lock in PostgreSQL, and whoever has it looks at Redis only then: what is written later was
//! also seen later.

use std::sync::Arc;

use tracing::debug;

use crate::store::Checkpoint;
use crate::trouble::Action;
use crate::work::Work;

/// Keeps the checkpoint, again and again.
pub(crate) async fn keep(work: Arc<Work>) {
    while work.rest(work.settings.worker.checkpoint_interval).await {
        let kept = work.store.checkpoint(|incarnation| compute(&work, incarnation)).await;
        if let Some(Some(checkpoint)) = work.note(Action::Checkpoint, kept) {
            work.events.checkpoint(&checkpoint);
        }
    }
}

/// Looks what is settled now; none where that is not known.
async fn compute(work: &Work, incarnation: String) -> Option<Checkpoint> {
    let survey = work.note(Action::Survey, work.consumer.survey().await)?;
    match survey.checkpoint(&incarnation) {
        Ok(checkpoint) => Some(checkpoint),
        Err(why) => {
            debug!(?why, "checkpoint stays where it is");
            None
        }
    }
}
