//! Workers announce that they are alive, and requeue what dead ones had taken; and the statistics that change by themselves.

use std::sync::Arc;

use super::buffer::Buffer;
use crate::action::Action;
use crate::consumer::Answer;
use crate::state::work::Work;

/// Gives a sign of life three times each time after which it would be missed, and looks for workers that give none.
pub(super) async fn announce(work: Arc<Work>, buffer: Buffer) {
    let period = work.settings.message_buffer.dead_after / 3;
    while work.rest(period).await {
        work.record(Action::AnnounceMessages, take_over_dead(&work, &buffer).await);
    }
}

async fn take_over_dead(work: &Work, buffer: &Buffer) -> Answer<()> {
    let dead = buffer.announce().await?;
    let taken = buffer.taken_by(&dead).await?;
    for (at, (worker, taken)) in dead.iter().zip(taken).enumerate() {
        // The first is looked at in any case: it may have been dead for so long that its name can be forgotten.
        if taken > 0 || at == 0 {
            let moved = buffer.take_over(worker).await?;
            if moved > 0 {
                work.events.messages_taken_over(worker, moved);
            }
        }
    }
    Ok(())
}

/// Writes the statistics at their interval.
pub(super) async fn show(work: Arc<Work>, buffer: Buffer) {
    loop {
        work.record(Action::ShowMessages, buffer.show().await);
        if !work.rest(work.settings.message_buffer.stats_interval).await {
            return;
        }
    }
}
