//! The counts of rows, from PostgreSQL to the public hash.
//!
//! Each worker's totals grow in the transactions that write the rows. One script adds total minus published and stores
//! what is published now, so a crash anywhere loses and doubles nothing, whoever publishes.
//!
//! Where the public hash is not there, or a recount was asked for, the rows are counted, and one script sets both hashes
//! as they were in the snapshot that was counted: whatever was published meanwhile is published again.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::action::Action;
use crate::consumer::Published;
use crate::state::work::Work;
use crate::store::CountTotal;

/// How many totals one script takes at most.
const SCRIPT_TOTALS: usize = 400;

/// How long what a dead worker counted waits at most, to be published by another, and a recount to be noticed.
const EVERYONES: Duration = Duration::from_secs(30);

/// After how long without writing a worker's totals are folded into those of workers that no longer exist.
const IDLE: Duration = Duration::from_secs(3600);

/// How many workers are folded at once: what is published of them fits into one script with what they are folded into.
const FOLDED: u32 = 40;

/// What is to be done before counts are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing.
    None,
    /// To accept what another program set.
    Accept,
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
    let totals = if everyones {
        work.record(Action::Count, work.store.fold_counts(IDLE, FOLDED).await);
        everyones_totals(work).await
    } else {
        work.record(Action::Count, work.store.counts_of(work.consumer.name()).await)
    };
    let Some(totals) = totals else { return };
    for totals in totals.chunks(SCRIPT_TOTALS) {
        match work.record(Action::Publish, work.consumer.publish(totals).await) {
            Some(Some(0)) => {}
            Some(Some(changed)) => work.events.published(changed),
            Some(None) => return work.counts_gone.notify_one(),
            None => return,
        }
    }
}

/// Reads the totals of all workers, and none for those of whom something is published that have none any more.
async fn everyones_totals(work: &Work) -> Option<Vec<CountTotal>> {
    let published = work.record(Action::Publish, work.consumer.published_totals().await)?;
    let totals = work.record(Action::Count, work.store.counts().await)?;
    Some(with_those_gone(published, totals))
}

/// Adds what is published and has no total any more, before the totals of workers, behind those of the workers that are gone.
pub(crate) fn with_those_gone(published: Vec<(String, String)>, totals: Vec<CountTotal>) -> Vec<CountTotal> {
    let known: HashSet<(&str, &str)> = totals.iter().map(|total| (&*total.worker, &*total.field)).collect();
    let gone = published.into_iter().filter(|(worker, field)| !known.contains(&(&**worker, &**field)));
    let gone: Vec<_> = gone.map(|(worker, field)| CountTotal { worker, field, total: 0 }).collect();
    let (folded, live): (Vec<_>, Vec<_>) = totals.into_iter().partition(|total| total.worker.is_empty());
    folded.into_iter().chain(gone).chain(live).collect()
}

/// Ensures that there are public counts to add to: at the start, as soon as they are missing, and now and then.
pub(crate) async fn ensure_counts(work: Arc<Work>) {
    let everyones = everyones(&work);
    loop {
        tokio::select! {
            biased;
            () = work.stop.cancelled() => return,
            () = recount_if_needed(&work) => {}
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

/// Accepts public counts that another program set. This is done before anything is counted: later they could not be
/// distinguished from counts that were set after Redis was lost.
pub(crate) async fn accept_public_counts(work: &Work) -> Option<Need> {
    let need = need(work).await;
    if need == Some(Need::Accept) {
        work.record(Action::Publish, work.consumer.accept_counts().await);
    }
    need
}

async fn recount_if_needed(work: &Work) {
    if accept_public_counts(work).await != Some(Need::Set) {
        return;
    }
    let began = Instant::now();
    let Some(Some(mut turn)) = work.record(Action::Count, work.store.turn_to_count().await) else { return };
    // Whoever had the turn before may have done it.
    if need(work).await == Some(Need::Set)
        && let Some(counted) = work.record(Action::Count, turn.count().await)
        && work.record(Action::Publish, work.consumer.set_counts(&counted).await).is_some()
    {
        work.events.counted(began.elapsed());
    }
    turn.end().await;
}

/// Decides what is to be done; none if that is not known now.
async fn need(work: &Work) -> Option<Need> {
    let asked = work.record(Action::Count, work.store.recount_asked().await)?;
    // Read before Redis is asked: who publishes first notes first.
    let counted = work.record(Action::Count, work.store.counts().await)?;
    let published = work.record(Action::Publish, work.consumer.published().await)?;
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
        None => Need::Accept,
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
    fn what_is_published_of_nobody_goes_with_what_it_was_folded_into() {
        let total =
            |worker: &str, field: &str, total| CountTotal { worker: worker.to_owned(), field: field.to_owned(), total };
        let published = [("a", "likes"), ("", "likes"), ("gone", "likes"), ("b", "posts"), ("x/y", "likes")];
        let published = published.map(|(worker, field)| (worker.to_owned(), field.to_owned()));
        let totals = vec![total("", "likes", 7), total("a", "likes", 1), total("b", "likes", 2)];
        let all = with_those_gone(published.into(), totals);
        let expected = [
            total("", "likes", 7),
            total("gone", "likes", 0),
            total("b", "posts", 0),
            total("x/y", "likes", 0),
            total("a", "likes", 1),
            total("b", "likes", 2),
        ];
        assert_eq!(all, expected);
        const { assert!((FOLDED as usize + 1) * penstock_core::live::RECORD_COUNTS.len() <= SCRIPT_TOTALS) };
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
            (published(true, false, None), None, false, Need::Accept),
            // Ours, of a version that noted nothing.
            (published(true, true, None), None, true, Need::Accept),
            // The AppView's, after Redis was lost.
            (published(true, false, None), None, true, Need::Set),
            (published(true, false, None), Some("1"), false, Need::Set),
        ] {
            assert_eq!(decide(&stands, asked, have_counted), need, "{stands:?} {asked:?} {have_counted}");
        }
    }
}
