//! Backfills that ingest registers of its own accord.

use penstock_wire::{rev_number, rev_text};
use serde_json::Value as Json;

use super::*;

/// The tables as the migration leaves them, as far as ingest uses them.
pub(super) const BACKFILLS: &str = "\
CREATE SCHEMA penstock;
CREATE TABLE penstock.checkpoint (
  host text COLLATE \"C\" PRIMARY KEY, seq bigint NOT NULL, stream_id text NOT NULL,
  updated_at timestamp NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE penstock.meta (key text COLLATE \"C\" PRIMARY KEY, value text NOT NULL);
INSERT INTO penstock.meta VALUES ('incarnation', 'here');
CREATE TABLE penstock.backfills (
  name text PRIMARY KEY, scope jsonb NOT NULL, priority smallint NOT NULL, reason text NOT NULL, filter text, since text,
  state text NOT NULL DEFAULT 'listing'
);";

/// A backfill as it was registered.
#[derive(Debug, PartialEq)]
pub(super) struct Backfill {
    pub(super) name: String,
    pub(super) scope: Json,
    pub(super) priority: i16,
    pub(super) reason: String,
    pub(super) filter: Option<String>,
    pub(super) since: Option<String>,
}

impl Backfill {
    /// The end of its name.
    pub(super) fn what(&self) -> &str {
        self.name.split_once('/').unwrap().1
    }
}

pub(super) async fn backfills(postgres: &mut PgConnection) -> Vec<Backfill> {
    type Row = (String, String, i16, String, Option<String>, Option<String>);
    let read = "SELECT name, scope::text, priority, reason, filter, since FROM penstock.backfills ORDER BY name";
    let rows: Vec<Row> = sqlx::query_as(read).fetch_all(postgres).await.unwrap();
    let backfill = |(name, scope, priority, reason, filter, since): Row| {
        let scope = serde_json::from_str(&scope).unwrap();
        Backfill { name, scope, priority, reason, filter, since }
    };
    rows.into_iter().map(backfill).collect()
}

/// What changed while the relay did not keep its events is registered to be read: as of an hour before the last event that came.
#[tokio::test(flavor = "multi_thread")]
async fn a_loss_is_registered_once_as_what_changed_since_the_last_event() {
    let whole = frames(&replay(583));
    let all = events(&whole);
    let of = |seq: u64| all.iter().find(|event| event.seq == seq);
    let missed = (20..200)
        .find(|seq| {
            of(*seq).is_some_and(|event| {
                let goes_on = |later: &&Event| later.seq > event.seq && later.since == event.rev;
                event.since.is_some()
                    && all.iter().any(|later| goes_on(&later))
                    && of(seq - 1).is_some()
                    && of(seq + 1).is_some()
            })
        })
        .unwrap();
    let at = missed as usize;
    let (address, _) = scripted(vec![(whole[..at - 1].to_vec(), true), (whole[at..].to_vec(), false)]).await;
    let mut rig = Rig::new(address).await;
    let url = penstock_local::testing::fresh_database().await.unwrap();
    let mut postgres = rig.set_database(&url, BACKFILLS).await;
    let running = rig.start();
    rig.reaches(583).await;
    eventually("it is registered", async || !backfills(&mut postgres).await.is_empty()).await;
    running.stop().await;
    let found = backfills(&mut postgres).await;
    let [one] = &found[..] else { panic!("{found:?}") };
    assert_eq!((one.name.as_str(), one.priority), (format!("seam-{}-{}/all", missed - 1, missed + 1).as_str(), 30));
    assert_eq!((&one.scope, one.reason.as_str(), &one.filter), (&serde_json::json!({"all": true}), "seam", &None));
    let last = all.iter().filter(|event| event.seq < missed).filter_map(|event| event.time).max().unwrap();
    let hour_before = (last - jiff::SignedDuration::from_hours(1)).as_microsecond();
    assert_eq!(one.since, Some(rev_text((hour_before as u64) << 10)), "{last}");
    assert!(rev_number(one.since.as_deref().unwrap()).is_some());
}
