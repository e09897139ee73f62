//! The counts of rows, from PostgreSQL to the public hash.
//!
//! Each worker's totals grow in the transactions that write the rows. One script adds total minus published and stores
//! what is published now, so a crash anywhere loses and doubles nothing, whoever publishes.
//!
//! Where the public hash is not there, or a recount was asked for, the rows are counted, and one script sets both hashes
//! as they were in the snapshot that was counted: whatever was published meanwhile is published again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::consumer::Published;
use crate::trouble::Action;
use crate::work::Work;

/// How many totals one script takes at most.
const SCRIPT_TOTALS: usize = 400;

/// How long what a dead worker counted waits at most, to be published by another, and a recount to be noticed.
const EVERYONES: Duration = Duration::from_secs(30);

/// What is to be done before counts are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing.
    None,
    /// To note that somebody else set the public counts.
    Adopt,
    /// To set them.
    Set,
}

/// Publishes this worker's counts, and at the start and now and then those of every worker: one may be dead.
pub(crate) async fn publish(work: Arc<Work>) {
    let everyones = everyones(&work);
    let mut due = Instant::now();
    while work.rest(work.settings.worker.publish_interval).await {
        let is_due = Instant::now() >= due;
        if is_due {
            due = Instant::now() + everyones;
        }
        publish_once(&work, is_due).await;
    }
}

/// Publishes what there is; what fails is left to the next time.
pub(crate) async fn publish_once(work: &Work, everyones: bool) {
    let store = &work.store;
    let totals = if everyones { store.counts().await } else { store.counts_of(work.consumer.name()).await };
    let Some(totals) = work.note(Action::Count, totals) else { return };
    for totals in totals.chunks(SCRIPT_TOTALS) {
        match work.note(Action::Publish, work.consumer.publish(totals).await) {
            Some(Some(0)) => {}
            Some(Some(changed)) => work.events.published(changed),
            Some(None) => return work.counts_gone.notify_one(),
            None => return,
        }
    }
}

/// Sees to it that there are public counts to add to: at the start, as soon as they are missed, and now and then.
pub(crate) async fn keep_whole(work: Arc<Work>) {
    let everyones = everyones(&work);
    loop {
        tokio::select! {
            biased;
            () = work.stop.cancelled() => return,
            () = make_whole(&work) => {}
        }
        let soon = work.settings.worker.publish_interval;
        if !work.rest(soon).await {
            return;
        }
        tokio::select! {
            biased;
            () = work.stop.cancelled() => return,
            () = work.counts_gone.notified() => {}
            () = tokio::time::sleep(everyones.saturating_sub(soon)) => {}
        }
    }
}

/// Notes that the public counts are somebody else's, where they are. Before anything is counted: later that cannot be told
/// from counts that were set after Redis was lost.
pub(crate) async fn adopt(work: &Work) -> Option<Need> {
    let need = need(work).await;
    if need == Some(Need::Adopt) {
        work.note(Action::Publish, work.consumer.adopt_counts().await);
    }
    need
}

async fn make_whole(work: &Work) {
    if adopt(work).await != Some(Need::Set) {
        return;
    }
    let began = Instant::now();
    let Some(Some(mut turn)) = work.note(Action::Count, work.store.turn_to_count().await) else { return };
    // Whoever had the turn before may have done it.
    if need(work).await == Some(Need::Set)
        && let Some(counted) = work.note(Action::Count, turn.count().await)
        && work.note(Action::Publish, work.consumer.set_counts(&counted).await).is_some()
    {
        work.events.counted(began.elapsed());
    }
    turn.end().await;
}

/// Looks what is to be done; none where that cannot be told now.
async fn need(work: &Work) -> Option<Need> {
    let asked = work.note(Action::Count, work.store.recount_asked().await)?;
    // Read before Redis is asked: who publishes first notes first.
    let counted = work.note(Action::Count, work.store.counts().await)?;
    let published = work.note(Action::Publish, work.consumer.published().await)?;
    Some(decide(&published, asked.as_deref(), counted.iter().any(|count| count.total != 0)))
}

/// Decides what is to be done, from what stands in Redis, the last recount that was asked for, and whether workers counted
/// anything yet.
fn decide(published: &Published, asked: Option<&str>, have_counted: bool) -> Need {
    let Published { shown, known, noted } = published;
    match noted.as_deref() {
        _ if !shown => Need::Set,
        noted if asked.is_some() && noted != asked => Need::Set,
        Some(_) => Need::None,
        // Redis was lost, and somebody set the public counts: with what we would publish once more.
        None if have_counted && !known => Need::Set,
        None => Need::Adopt,
    }
}

fn everyones(work: &Work) -> Duration {
    work.settings.worker.claim_time.min(EVERYONES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(shown: bool, known: bool, noted: Option<&str>) -> Published {
        Published { shown, known, noted: noted.map(str::to_owned) }
    }

    #[test]
    fn counts_are_set_where_nobody_set_them_and_where_a_recount_was_asked_for() {
        for (stands, asked, have_counted, need) in [
            (published(false, false, None), None, false, Need::Set),
            (published(false, true, Some("")), None, true, Need::Set),
            (published(false, true, Some("1")), Some("1"), true, Need::Set),
            (published(true, true, Some("1")), Some("1"), true, Need::None),
            (published(true, true, Some("1")), Some("2"), true, Need::Set),
            (published(true, true, Some("")), Some("1"), true, Need::Set),
            (published(true, true, Some("")), None, true, Need::None),
            // The AppView's, at our first start.
            (published(true, false, None), None, false, Need::Adopt),
            // Ours, of a version that noted nothing.
            (published(true, true, None), None, true, Need::Adopt),
            // The AppView's, after Redis was lost.
            (published(true, false, None), None, true, Need::Set),
            (published(true, false, None), Some("1"), false, Need::Set),
        ] {
            assert_eq!(decide(&stands, asked, have_counted), need, "{stands:?} {asked:?} {have_counted}");
        }
    }
}
