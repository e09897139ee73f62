//! Trims the stream, watches how full it is, and pauses reading.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::{KeysInterface, LuaInterface, StreamsInterface};
use fred::types::Value;
use penstock_core::causes::chain;
use penstock_core::live::state;
use penstock_core::servers::Failing;
use penstock_core::settings::Settings;
use penstock_core::stream::StreamId;
use penstock_core::units::seconds;
use penstock_core::{redis, script};
use tokio::sync::watch;
use tokio::time::interval;
use tracing::{info, warn};

use crate::events::Events;
use crate::stream::bulk::{Blocker, Bulk, Consumer, Deserted, Readers};
use crate::stream::lease::Lease;
use crate::stream::pressure::{Fill, Group, Hold, Holding, Sightings};

use crate::scripts;
use crate::stream::requeue;

/// How many pending entries of another group are looked through at once for one that still holds.
const PENDING_PAGE: u64 = 1_000;

/// How many such pages are looked through; after them the group holds from there on.
const PENDING_PAGES: usize = 10;

/// How many scripts may trim in a row, where one cannot look through all unnumbered entries.
const SCRIPTS: usize = 10;

/// Keeps the stream within its bounds while the lease is held.
pub(crate) struct Trimmer {
    /// The connection for commands.
    pub(crate) client: Client,
    /// All settings.
    pub(crate) settings: Arc<Settings>,
    /// The lease that fences it.
    pub(crate) lease: Lease,
    /// Logs and counts.
    pub(crate) events: Events,
    /// Pauses reading.
    pub(crate) paused: watch::Sender<bool>,
    /// What must stay.
    pub(crate) hold: watch::Receiver<Hold>,
    /// Publishes whether the second stream may be used.
    pub(crate) readers: watch::Sender<Bulk>,
}

/// What the trimmer remembers from one interval to the next.
#[derive(Debug, Default)]
struct TrimState {
    seen: Sightings,
    seen_bulk: Sightings,
    left_out: Vec<String>,
    deserted: Deserted,
    stored_pause: Option<bool>,
}

type Fields = HashMap<String, Value>;

// === impl Trimmer ===

impl Trimmer {
    /// Trims and measures at each interval, until dropped.
    pub(crate) async fn run(self) {
        let mut memory = TrimState::default();
        let mut failing = Failing::default();
        let mut tick = interval(self.settings.ingest.trim_interval);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            match self.trim_and_measure(&mut memory).await {
                Ok(()) => {
                    if let Some(after) = failing.over(Instant::now()) {
                        info!(after_seconds = seconds(after), "trimming the stream again");
                    }
                }
                Err(error) => {
                    self.events.trim_failed();
                    if self.events.is_due(&mut failing, &error) {
                        warn!(error = chain(&error), "could not trim the stream");
                    }
                }
            }
        }
    }

    async fn trim_and_measure(&self, memory: &mut TrimState) -> Result<(), Error> {
        let ingest = &self.settings.ingest;
        let stream = self.settings.keys.stream();
        let trimming = async {
            let groups = self.groups(stream).await?;
            let ours = self.settings.keys.group();
            let holding = memory.seen.decide(&groups, ours, Instant::now(), ingest.foreign_group_hold);
            for group in holding.left_out.iter().filter(|group| !memory.left_out.contains(group)) {
                self.events.left_out(group);
            }
            memory.left_out.clone_from(&holding.left_out);
            self.trim(&holding).await?;
            self.trim_bulk(&mut memory.seen_bulk).await?;
            self.check_readers(&groups, &holding, &mut memory.deserted).await?;
            Ok::<_, Error>(holding)
        };
        // Measured even if the stream cannot be trimmed: reading pauses by it.
        let trimmed = trimming.await;
        let holding = trimmed.as_ref().cloned().unwrap_or_default();
        let entries: u64 = self.client.xlen(stream).await?;
        let in_bulk: u64 = self.client.xlen(self.settings.keys.bulk()).await?;
        let told = redis::memory_if_told(&self.client, stream).await?;
        let (used, max) = told.map_or((0, None), |memory| (memory.used, memory.max));
        self.events.redis_memory(used, max);
        self.events.fill(entries, in_bulk, holding.holding, holding.left_out.len());
        // Both are in one Redis.
        let entries = entries + in_bulk;
        let fill = Fill { entries, cap: self.settings.redis.max_stream_len, used, max };
        let was_paused = *self.paused.borrow();
        let paused = fill.pause(was_paused, ingest.high_watermark, ingest.low_watermark);
        if paused != was_paused {
            self.events.paused(paused, entries, used);
            self.paused.send_replace(paused);
        }
        if memory.stored_pause != Some(paused) {
            let value = if paused { "1" } else { "0" };
            script::set_field(&self.client, self.settings.keys.ingest_state(), state::PAUSED, value).await?;
            memory.stored_pause = Some(paused);
        }
        trimmed.map(drop)
    }

    async fn trim(&self, holding: &Holding) -> Result<(), Error> {
        let hold = *self.hold.borrow();
        let Some(below) = hold.bound(holding.trim_below) else { return Ok(()) };
        // With a hold from an entry on, everything before it was looked at. Otherwise the script has to look first.
        let is_looked = hold != Hold::Nothing || self.settings.ingest.shared_stream;
        let look = if is_looked { String::new() } else { scripts::SCAN_LIMIT.to_string() };
        let keys = &self.settings.keys;
        for _ in 0..SCRIPTS {
            let names = vec![self.lease.key().to_owned(), keys.stream().to_owned(), keys.ingest_state()];
            let arguments = vec![self.lease.token().to_owned(), below.to_string(), look.clone()];
            let (trimmed, more): (u64, String) = self.client.eval(scripts::TRIM, names, arguments).await?;
            self.events.trimmed(trimmed);
            if more != "1" {
                break;
            }
        }
        Ok(())
    }

    /// Trims the second stream, which says nothing of the position or of other programs.
    async fn trim_bulk(&self, seen: &mut Sightings) -> Result<(), Error> {
        let keys = &self.settings.keys;
        let groups = self.groups(keys.bulk()).await?;
        let hold = self.settings.ingest.foreign_group_hold;
        let Some(below) = seen.decide(&groups, keys.group(), Instant::now(), hold).trim_below else { return Ok(()) };
        let names = vec![self.lease.key().to_owned(), keys.bulk().to_owned(), keys.ingest_state()];
        let arguments = vec![self.lease.token().to_owned(), below.to_string(), String::new()];
        let (trimmed, _): (u64, String) = self.client.eval(scripts::TRIM, names, arguments).await?;
        self.events.trimmed(trimmed);
        Ok(())
    }

    /// Checks who reads which stream, publishes the result, and moves to the first what nobody reads in the second.
    async fn check_readers(&self, groups: &[Group], holding: &Holding, deserted: &mut Deserted) -> Result<(), Error> {
        let keys = &self.settings.keys;
        let readers = self.readers(groups).await?;
        let bulk = if self.settings.ingest.shared_stream {
            Bulk::Closed(Blocker::Shared)
        } else {
            Bulk::decide(keys.group(), groups, holding, &readers)
        };
        self.events.readers(&bulk);
        self.readers.send_if_modified(|known| {
            let is_new = *known != bulk;
            *known = bulk;
            is_new
        });
        let away = requeue::away(self.settings.worker.claim_time);
        if !deserted.check(&readers, Instant::now(), away) {
            return Ok(());
        }
        let mut moved = 0;
        for _ in 0..SCRIPTS {
            let names = [self.lease.key(), keys.bulk(), keys.stream(), &keys.ingest_state()].map(str::to_owned);
            let most = [requeue::COUNT, requeue::BYTES].map(|most| most.to_string());
            let mut arguments = vec![self.lease.token().to_owned(), keys.group().to_owned()];
            arguments.extend(most);
            let (some, more): (u64, String) = self.client.eval(scripts::UNLOAD, names.to_vec(), arguments).await?;
            moved += some;
            if more != "1" {
                break;
            }
        }
        self.events.unloaded(moved);
        Ok(())
    }

    /// Lists the consumers of our group in both streams.
    async fn readers(&self, groups: &[Group]) -> Result<Readers, Error> {
        let keys = &self.settings.keys;
        if !groups.iter().any(|group| group.name == keys.group()) {
            return Ok(Readers::default());
        }
        let name = |of: &Fields| of.get("name").and_then(Value::as_string);
        let first: Vec<Fields> = self.client.xinfo_consumers(keys.stream(), keys.group()).await?;
        let reader = |of: &Fields| {
            let idle = Duration::from_millis(of.get("idle").and_then(Value::as_u64)?);
            Some(Consumer { name: name(of)?, idle })
        };
        let first = first.iter().filter_map(reader).collect();
        let second: Vec<Fields> = match self.client.xinfo_consumers(keys.bulk(), keys.group()).await {
            Err(error) if requeue::is_nothing_there(&error) => Vec::new(),
            second => second?,
        };
        let second: BTreeSet<String> = second.iter().filter_map(name).collect();
        let alive: Vec<String> = second.iter().map(|name| keys.consumer_alive(name)).collect();
        let live = !alive.is_empty() && self.client.exists::<u64, _>(alive).await? > 0;
        Ok(Readers { first, second, live })
    }

    /// Reads the groups. Pending entries are read after the last-delivered IDs, so an entry that is neither pending nor above
    /// the last delivered one is acknowledged.
    async fn groups(&self, stream: &str) -> Result<Vec<Group>, Error> {
        // Read before the groups: a group that was delivered this entry was delivered everything.
        let newest: Fields = match self.client.xinfo_stream(stream, false, None).await {
            Ok(newest) => newest,
            Err(error) if error.details().contains("no such key") => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        // The last generated ID may be in the second stream, and the last entry may be trimmed.
        let id = |value: &Value| value.as_string().and_then(|id| id.parse::<StreamId>().ok());
        let entry = newest.get("last-entry").cloned().map(Value::into_array).unwrap_or_default();
        let newest: Vec<StreamId> =
            [newest.get("last-generated-id"), entry.first()].into_iter().flatten().filter_map(id).collect();
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
            let is_caught_up = pending == Some(0) && newest.iter().any(|newest| last_delivered >= *newest);
            let first_pending = match pending {
                Some(0) => None,
                _ if name == self.settings.keys.group() => self.first_pending(stream, &name).await?,
                _ => self.first_holding(stream, &name).await?,
            };
            let is_ours = name == self.settings.keys.group();
            let least_idle = if is_ours { None } else { self.least_idle(stream, &name).await? };
            groups.push(Group { name, last_delivered, first_pending, least_idle, is_caught_up });
        }
        Ok(groups)
    }

    async fn first_pending(&self, stream: &str, group: &str) -> Result<Option<StreamId>, Error> {
        let page: Vec<(String, String, u64, u64)> = self.client.xpending(stream, group, ("-", "+", 1)).await?;
        Ok(page.first().and_then(|(id, ..)| id.parse().ok()))
    }

    /// Finds the first entry that another group was delivered within the hold time.
    async fn first_holding(&self, stream: &str, group: &str) -> Result<Option<StreamId>, Error> {
        let hold = self.settings.ingest.foreign_group_hold;
        let mut from = "-".to_owned();
        for _ in 0..PENDING_PAGES {
            let page: Vec<(String, String, u64, u64)> =
                self.client.xpending(stream, group, (from.as_str(), "+", PENDING_PAGE)).await?;
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

    async fn least_idle(&self, stream: &str, group: &str) -> Result<Option<Duration>, Error> {
        let consumers: Vec<Fields> = self.client.xinfo_consumers(stream, group).await?;
        let idle = consumers.iter().filter_map(|fields| fields.get("idle").and_then(Value::as_u64)).min();
        Ok(idle.map(Duration::from_millis))
    }
}
