//! Trims the stream, watches how full it is, and tells when reading is to pause.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::{HashesInterface, LuaInterface, StreamsInterface};
use fred::types::Value;
use penstock_core::live::state;
use penstock_core::redis;
use penstock_core::settings::Settings;
use penstock_core::stream::StreamId;
use tokio::sync::watch;
use tokio::time::interval;
use tracing::{info, warn};

use crate::events::Telemetry;
use crate::lease::Lease;
use crate::pressure::{Fill, Group, Hold, Holding, Sightings};
use crate::takeover::LOOK;
use crate::{TELL_AGAIN, scripts};

/// How many pending entries of another group are looked through for one that still holds.
const PENDING_PAGE: u64 = 1_000;

/// How many such pages; past them the group holds from there on.
const PENDING_PAGES: usize = 10;

/// How many scripts trim at once, where more entries without a number came than one looks through.
const SCRIPTS: usize = 10;

/// Keeps the stream within its bounds while the lease is held.
pub(crate) struct Trimmer {
    /// The connection for commands.
    pub(crate) client: Client,
    /// All settings.
    pub(crate) settings: Arc<Settings>,
    /// The lease under which it is trimmed.
    pub(crate) lease: Lease,
    /// Logs and counts.
    pub(crate) telemetry: Telemetry,
    /// Where it tells whether reading is to pause.
    pub(crate) paused: watch::Sender<bool>,
    /// What is to stay.
    pub(crate) hold: watch::Receiver<Hold>,
}

/// Trimming that fails.
struct Failing {
    since: Instant,
    tell_at: Instant,
}

type Fields = HashMap<String, Value>;

// === impl Trimmer ===

impl Trimmer {
    /// Trims and looks at each interval, until dropped.
    pub(crate) async fn run(self) {
        let mut seen = Sightings::default();
        let mut left_out: Vec<String> = Vec::new();
        let mut failing: Option<Failing> = None;
        let mut told = None;
        let mut tick = interval(self.settings.ingest.trim_interval);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            match self.look(&mut seen, &mut left_out, &mut told).await {
                Ok(()) => {
                    if let Some(Failing { since, .. }) = failing.take() {
                        info!(after = ?since.elapsed(), "the stream is trimmed again");
                    }
                }
                Err(error) => {
                    self.telemetry.trim_failed();
                    let now = Instant::now();
                    let failing = failing.get_or_insert(Failing { since: now, tell_at: now });
                    if now >= failing.tell_at {
                        failing.tell_at = now + TELL_AGAIN;
                        warn!(%error, since = ?failing.since.elapsed(), "could not trim the stream");
                    }
                }
            }
        }
    }

    async fn look(
        &self,
        seen: &mut Sightings,
        left_out: &mut Vec<String>,
        told: &mut Option<bool>,
    ) -> Result<(), Error> {
        let ingest = &self.settings.ingest;
        let stream = self.settings.keys.stream();
        let trimming = async {
            let groups = self.groups().await?;
            let holding = seen.decide(&groups, self.settings.keys.group(), Instant::now(), ingest.foreign_group_hold);
            for group in holding.left_out.iter().filter(|group| !left_out.contains(group)) {
                self.telemetry.left_out(group);
            }
            left_out.clone_from(&holding.left_out);
            self.trim(&holding).await?;
            Ok::<_, Error>(holding)
        };
        // Whatever keeps the stream from being trimmed, its fill is looked at: it is what reading pauses on.
        let trimmed = trimming.await;
        let holding = trimmed.as_ref().cloned().unwrap_or_default();
        let entries: u64 = self.client.xlen(stream).await?;
        let memory = redis::memory(&self.client, stream).await?;
        self.telemetry.fill(entries, holding.holding, holding.left_out.len());
        let fill = Fill { entries, cap: self.settings.redis.max_stream_len, used: memory.used, max: memory.max };
        let was_paused = *self.paused.borrow();
        let paused = fill.pause(was_paused, ingest.high_watermark, ingest.low_watermark);
        if paused != was_paused {
            self.telemetry.paused(paused, entries, memory.used);
            self.paused.send_replace(paused);
        }
        if *told != Some(paused) {
            let value = if paused { "1" } else { "0" };
            let _: () = self.client.hset(self.settings.keys.ingest_state(), (state::PAUSED, value)).await?;
            *told = Some(paused);
        }
        trimmed.map(drop)
    }

    async fn trim(&self, holding: &Holding) -> Result<(), Error> {
        let hold = *self.hold.borrow();
        let Some(below) = hold.bound(holding.trim_below) else { return Ok(()) };
        // What is held from an entry on was looked at, and is gone by. Else nobody may have seen yet what would go.
        let is_looked = hold != Hold::Nothing || self.settings.ingest.shared_stream;
        let look = if is_looked { String::new() } else { LOOK.to_string() };
        let keys = &self.settings.keys;
        for _ in 0..SCRIPTS {
            let names = vec![self.lease.key().to_owned(), keys.stream().to_owned(), keys.ingest_state()];
            let arguments = vec![self.lease.token().to_owned(), below.to_string(), look.clone()];
            let (trimmed, more): (u64, String) = self.client.eval(scripts::TRIM, names, arguments).await?;
            self.telemetry.trimmed(trimmed);
            if more != "1" {
                break;
            }
        }
        Ok(())
    }

    /// Reads the groups. What is pending is read after what was delivered: so an entry that is neither pending nor above
    /// the last delivered was acknowledged.
    async fn groups(&self) -> Result<Vec<Group>, Error> {
        let stream = self.settings.keys.stream();
        // Read before the groups: who was given this entry was given all that there was.
        let newest: Fields = match self.client.xinfo_stream(stream, false, None).await {
            Ok(newest) => newest,
            Err(error) if error.details().contains("no such key") => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let newest = newest.get("last-generated-id").and_then(Value::as_string).and_then(|id| id.parse().ok());
        let found: Vec<Fields> = match self.client.xinfo_groups(stream).await {
            Ok(found) => found,
            Err(error) if error.details().contains("no such key") => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut groups = Vec::with_capacity(found.len());
        for fields in found {
            let Some(name) = fields.get("name").and_then(Value::as_string) else { continue };
            let last_delivered = fields
                .get("last-delivered-id")
                .and_then(Value::as_string)
                .and_then(|id| id.parse().ok())
                .unwrap_or(StreamId::MIN);
            let pending = fields.get("pending").and_then(Value::as_u64);
            let is_caught_up = pending == Some(0) && newest.is_some_and(|newest: StreamId| last_delivered >= newest);
            let first_pending = match pending {
                Some(0) => None,
                _ if name == self.settings.keys.group() => self.first_pending(&name).await?,
                _ => self.first_holding(&name).await?,
            };
            let least_idle = if name == self.settings.keys.group() { None } else { self.least_idle(&name).await? };
            groups.push(Group { name, last_delivered, first_pending, least_idle, is_caught_up });
        }
        Ok(groups)
    }

    async fn first_pending(&self, group: &str) -> Result<Option<StreamId>, Error> {
        let page: Vec<(String, String, u64, u64)> =
            self.client.xpending(self.settings.keys.stream(), group, ("-", "+", 1)).await?;
        Ok(page.first().and_then(|(id, ..)| id.parse().ok()))
    }

    /// Finds another group's first entry that it was given within the hold time.
    async fn first_holding(&self, group: &str) -> Result<Option<StreamId>, Error> {
        let hold = self.settings.ingest.foreign_group_hold;
        let mut from = "-".to_owned();
        for _ in 0..PENDING_PAGES {
            let page: Vec<(String, String, u64, u64)> =
                self.client.xpending(self.settings.keys.stream(), group, (from.as_str(), "+", PENDING_PAGE)).await?;
            let holding = page.iter().find(|(_, _, idle, _)| Duration::from_millis(*idle) <= hold);
            if let Some((id, ..)) = holding {
                return Ok(id.parse().ok());
            }
            let Some(last) = page.last().and_then(|(id, ..)| id.parse::<StreamId>().ok()) else { return Ok(None) };
            if (page.len() as u64) < PENDING_PAGE {
                return Ok(None);
            }
            from = last.next().to_string();
        }
        Ok(from.parse().ok())
    }

    async fn least_idle(&self, group: &str) -> Result<Option<Duration>, Error> {
        let consumers: Vec<Fields> = self.client.xinfo_consumers(self.settings.keys.stream(), group).await?;
        let idle = consumers.iter().filter_map(|fields| fields.get("idle").and_then(Value::as_u64)).min();
        Ok(idle.map(Duration::from_millis))
    }
}
