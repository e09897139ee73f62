//! What Redis tells: by plain commands that only read, one at a time, so that a refused one spoils no other.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use fred::clients::Client;
use fred::interfaces::ClientLike;
use fred::types::{ClusterHash, CustomCommand, Value};
use jiff::Timestamp;
use penstock_core::lag::Lag;
use penstock_core::live::state;
use penstock_core::settings::Settings;
use penstock_core::stream::{Seq, StreamId, field};
use tokio::time::{sleep, timeout};

use super::QUESTION;
use super::dialect::Dialect;
use crate::seen::{ConsumerSeen, EntrySeen, GroupSeen, Moment, RedisSeen, Side};
use crate::text;

/// How many of the newest entries are looked at.
const NEWEST: u64 = 30;

/// How many entries that came between the two looks are looked at: a batch of ours has up to 5,000 in a row.
const BETWEEN: u64 = 8_000;

/// How many entries are read at a time: each may have 16 MB.
const PAGE: u64 = 10;

/// How long that may take.
const PAGES: Duration = Duration::from_secs(3);

/// How many groups, and how many consumers of one, are looked at.
const GROUPS: usize = 16;
const CONSUMERS: usize = 500;

/// How many pending entries that are no longer in the stream are counted.
const TRIMMED: u64 = 1_000;

const CONFIG: [&str; 7] = [
    "appendonly",
    "appendfsync",
    "timeout",
    "maxmemory-policy",
    "min-replicas-to-write",
    "stop-writes-on-bgsave-error",
    "maxclients",
];

/// Asks Redis.
struct Questions<'a> {
    client: Client,
    /// Which server of a Cluster is asked: the one that has the stream.
    slot: ClusterHash,
    unseen: &'a mut Vec<(String, String)>,
}

type Fields = HashMap<String, Value>;

/// Looks at Redis.
pub(super) async fn look(settings: &Settings, pause: Duration, side: &mut Side<RedisSeen>) {
    let connecting = timeout(2 * QUESTION, penstock_core::redis::connect(settings)).await;
    let client = match connecting {
        Ok(Ok(client)) => client,
        Ok(Err(error)) => {
            side.error = Some(text::error(&error));
            return;
        }
        Err(_) => {
            side.error = Some(format!("no reply within {} s", 2 * QUESTION.as_secs()));
            return;
        }
    };
    let slot = ClusterHash::from(settings.keys.stream());
    let mut questions = Questions { client: client.clone(), slot, unseen: &mut side.unseen };
    if let Err(error) = questions.all(settings, pause, &mut side.seen).await {
        side.error = Some(error);
    }
    let _ = timeout(QUESTION, client.quit()).await;
}

// === impl Questions ===

impl Questions<'_> {
    async fn all(&mut self, settings: &Settings, pause: Duration, seen: &mut RedisSeen) -> Result<(), String> {
        let keys = &settings.keys;
        self.server(seen).await?;
        self.types(settings, seen).await?;
        let wrong: Vec<String> = seen.wrong_types.iter().map(|(key, ..)| key.clone()).collect();
        let is_sound = |key: &str| !wrong.iter().any(|wrong| wrong == key);
        if is_sound(keys.stream()) {
            self.stream(settings, seen).await?;
        }
        if is_sound(keys.bulk()) {
            seen.bulk = self.moment(keys.bulk()).await?.map(|(moment, _)| moment.length);
        }
        self.small_keys(settings, seen, &is_sound).await?;
        if let Some(before) = seen.stream.clone() {
            sleep(pause).await;
            seen.pause = pause;
            self.again(settings, &before, seen).await?;
            // The lease is asked for at the end too: one that was taken in between explains what came in between.
            seen.lease |= is_sound(&keys.ingest_lease()) && self.lease(&keys.ingest_lease()).await?;
        }
        Ok(())
    }

    async fn server(&mut self, seen: &mut RedisSeen) -> Result<(), String> {
        if let Some(info) = self.ask("server state (INFO)", "INFO", Vec::new()).await? {
            let info = info.as_string().unwrap_or_default();
            let fields = info.lines().filter_map(|line| line.split_once(':'));
            seen.info = fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
        }
        let names = std::iter::once("GET").chain(CONFIG).map(str::to_owned).collect();
        let several = seen.text("redis_version").is_none_or(|version| !version.starts_with(['4', '5', '6']));
        if several {
            if let Some(config) = self.ask("server settings (CONFIG GET)", "CONFIG", names).await? {
                seen.config = strings(config);
            }
        } else {
            for name in CONFIG {
                let asked = vec!["GET".to_owned(), name.to_owned()];
                let Some(config) = self.ask("server settings (CONFIG GET)", "CONFIG", asked).await? else {
                    break;
                };
                seen.config.extend(strings(config));
            }
        }
        let clock = self.ask("server time (TIME)", "TIME", Vec::new()).await?;
        let clock = clock.and_then(|value| {
            let parts: Vec<u64> = array(value).iter().filter_map(number).collect();
            let [seconds, micros] = parts[..] else { return None };
            Some(seconds * 1_000 + micros / 1_000)
        });
        seen.now_ms = clock.unwrap_or_else(|| u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default());
        Ok(())
    }

    async fn types(&mut self, settings: &Settings, seen: &mut RedisSeen) -> Result<(), String> {
        let keys = &settings.keys;
        let wanted = [
            (keys.stream().to_owned(), "stream"),
            (keys.bulk().to_owned(), "stream"),
            (keys.cursor().to_owned(), "string"),
            (keys.status(), "string"),
            (keys.ingest_source(), "string"),
            (keys.ingest_state(), "hash"),
            (keys.ingest_lease(), "string"),
            (keys.pipeline(), "string"),
            (keys.incarnation(), "string"),
            (keys.dead_letters(), "stream"),
            (keys.raw_letters(), "stream"),
            (keys.record_counts(), "hash"),
            (keys.cluster_metrics(), "hash"),
            (keys.pending_messages(), "list"),
        ];
        for (key, wanted) in wanted {
            let found = self.ask(&format!("type of {key} (TYPE)"), "TYPE", vec![key.clone()]).await?;
            let found = found.and_then(|value| value.as_string()).unwrap_or_else(|| "none".to_owned());
            if found != "none" && found != wanted {
                seen.wrong_types.push((key, found, wanted.to_owned()));
            }
        }
        Ok(())
    }

    async fn stream(&mut self, settings: &Settings, seen: &mut RedisSeen) -> Result<(), String> {
        let stream = settings.keys.stream();
        let Some((moment, first)) = self.moment(stream).await? else { return Ok(()) };
        seen.stream = Some(moment);
        seen.newest = self.newest(stream).await?;
        let asked = vec!["GROUPS".to_owned(), stream.to_owned()];
        let Some(groups) = self.ask("consumer groups (XINFO GROUPS)", "XINFO", asked).await? else { return Ok(()) };
        for group in array(groups).into_iter().take(GROUPS) {
            let group = self.group(stream, first, &fields(group)).await?;
            seen.groups.push(group);
        }
        let names: Vec<String> = seen
            .groups
            .iter()
            .filter(|group| group.name == settings.keys.group())
            .flat_map(|group| group.consumers.iter().map(|consumer| consumer.name.clone()))
            .collect();
        for name in names {
            let key = settings.keys.consumer_alive(&name);
            let alive = self.ask("worker heartbeats (EXISTS)", "EXISTS", vec![key]).await?;
            let Some(alive) = alive else { break };
            if number(&alive) == Some(1) {
                seen.alive.insert(name);
            }
        }
        Ok(())
    }

    async fn moment(&mut self, stream: &str) -> Result<Option<(Moment, Option<StreamId>)>, String> {
        let asked = vec!["STREAM".to_owned(), stream.to_owned()];
        let Some(found) = self.ask("stream (XINFO STREAM)", "XINFO", asked).await? else { return Ok(None) };
        let mut found = fields(found);
        let of = |name: &str| found.get(name).and_then(number);
        let moment = Moment {
            length: of("length").unwrap_or_default(),
            last: found.get("last-generated-id").and_then(id).unwrap_or_default(),
            added: of("entries-added"),
        };
        let first = found.remove("first-entry").and_then(|value| array(value).first().and_then(id));
        Ok(Some((moment, first)))
    }

    async fn group(&mut self, stream: &str, first: Option<StreamId>, of: &Fields) -> Result<GroupSeen, String> {
        let name = of.get("name").and_then(Value::as_string).unwrap_or_default();
        // As workers and autoscaler count it; where a script may not be run, what Redis says.
        let counted = match timeout(QUESTION, penstock_core::lag::backlog(&self.client, stream, &name)).await {
            Ok(Ok(Some(backlog))) => Some(backlog.undelivered),
            _ => of.get("lag").and_then(number).map(Lag::Exact),
        };
        let mut group = GroupSeen {
            name,
            lag: counted.map(Lag::at_least),
            lag_exact: counted.is_some_and(Lag::is_exact),
            pending: of.get("pending").and_then(number).unwrap_or_default(),
            read: of.get("entries-read").and_then(number),
            ..GroupSeen::default()
        };
        let asked = vec!["CONSUMERS".to_owned(), stream.to_owned(), group.name.clone()];
        if let Some(consumers) = self.ask("consumers (XINFO CONSUMERS)", "XINFO", asked).await? {
            let consumers = array(consumers).into_iter().take(CONSUMERS).map(fields);
            group.consumers = consumers
                .map(|of| ConsumerSeen {
                    name: of.get("name").and_then(Value::as_string).unwrap_or_default(),
                    pending: of.get("pending").and_then(number).unwrap_or_default(),
                    idle: Duration::from_millis(of.get("idle").and_then(number).unwrap_or_default()),
                })
                .collect();
        }
        // Pending below the first entry of the stream: somebody trimmed what was not acknowledged.
        if let (true, Some(first)) = (group.pending > 0, first) {
            let asked =
                [stream, &group.name, "-", &format!("({first}"), &TRIMMED.to_string()].map(str::to_owned).to_vec();
            if let Some(below) = self.ask("pending entries (XPENDING)", "XPENDING", asked).await? {
                group.trimmed_pending = u64::try_from(array(below).len()).unwrap_or_default();
            }
        }
        Ok(group)
    }

    async fn small_keys(
        &mut self,
        settings: &Settings,
        seen: &mut RedisSeen,
        is_sound: &impl Fn(&str) -> bool,
    ) -> Result<(), String> {
        let keys = &settings.keys;
        let get = async |this: &mut Self, key: &str| -> Result<Option<String>, String> {
            if !is_sound(key) {
                return Ok(None);
            }
            let value = this.ask(&format!("{key} (GET)"), "GET", vec![key.to_owned()]).await?;
            Ok(value.and_then(|value| value.as_string()))
        };
        if is_sound(&keys.ingest_state()) {
            let asked = vec![keys.ingest_state(), state::CURSOR.to_owned()];
            let before = self.ask(&format!("{} (HGET)", keys.ingest_state()), "HGET", asked).await?;
            seen.ours_before = before.as_ref().and_then(number);
        }
        seen.cursor = get(self, keys.cursor()).await?;
        seen.source = get(self, &keys.ingest_source()).await?.and_then(|text| serde_json::from_str(&text).ok());
        seen.status = get(self, &keys.status()).await?.and_then(|text| serde_json::from_str(&text).ok());
        seen.claim = get(self, &keys.pipeline()).await?;
        seen.incarnation = get(self, &keys.incarnation()).await?;
        if is_sound(&keys.ingest_lease()) {
            seen.lease = self.lease(&keys.ingest_lease()).await?;
        }
        for (key, into) in [(keys.ingest_state(), &mut seen.state), (keys.record_counts(), &mut seen.record_counts)] {
            if is_sound(&key)
                && let Some(found) = self.ask(&format!("{key} (HGETALL)"), "HGETALL", vec![key.clone()]).await?
            {
                *into = strings(found);
            }
        }
        for letters in [keys.dead_letters(), keys.raw_letters()].iter().filter(|letters| is_sound(letters)) {
            let length = self.ask("dead letters (XLEN)", "XLEN", vec![letters.clone()]).await?;
            seen.dead_letters += length.as_ref().and_then(number).unwrap_or_default();
            let newest = [letters, "+", "-", "COUNT", "1"].map(str::to_owned).to_vec();
            let newest = self.ask("newest dead letter (XREVRANGE)", "XREVRANGE", newest).await?;
            let newest = newest
                .and_then(|value| array(value).into_iter().next())
                .and_then(|entry| array(entry).first().and_then(id));
            seen.newest_dead_letter = seen.newest_dead_letter.max(newest);
        }
        Ok(())
    }

    async fn newest(&mut self, stream: &str) -> Result<Vec<EntrySeen>, String> {
        let (mut newest, mut from): (Vec<EntrySeen>, _) = (Vec::new(), "+".to_owned());
        while (newest.len() as u64) < NEWEST {
            let asked = [stream, &from, "-", "COUNT", &PAGE.to_string()].map(str::to_owned).to_vec();
            let Some(page) = self.ask("newest entries (XREVRANGE)", "XREVRANGE", asked).await? else { break };
            let before = newest.len();
            newest.extend(array(page).into_iter().filter_map(entry));
            let Some(last) = newest.last().filter(|_| newest.len() > before) else { break };
            from = format!("({}", last.id);
        }
        Ok(newest)
    }

    async fn lease(&mut self, key: &str) -> Result<bool, String> {
        let held = self.ask("ingest lease (EXISTS)", "EXISTS", vec![key.to_owned()]).await?;
        Ok(held.as_ref().and_then(number) == Some(1))
    }

    /// Looks a second time: what came in between, and how much went.
    async fn again(&mut self, settings: &Settings, before: &Moment, seen: &mut RedisSeen) -> Result<(), String> {
        let stream = settings.keys.stream();
        let Some((later, _)) = self.moment(stream).await? else { return Ok(()) };
        let (mut from, mut left, until) = (before.last, BETWEEN, Instant::now() + PAGES);
        while from < later.last {
            if left < PAGE || Instant::now() >= until {
                seen.between_more = true;
                break;
            }
            let asked = [stream, &format!("({from}"), "+", "COUNT", &PAGE.to_string()].map(str::to_owned).to_vec();
            let Some(page) = self.ask("new entries (XRANGE)", "XRANGE", asked).await? else { break };
            let page: Vec<EntrySeen> = array(page).into_iter().filter_map(entry).collect();
            let Some(last) = page.last() else { break };
            (from, left) = (last.id, left - PAGE);
            for entry in &page {
                *seen.between.entry(entry.dialect).or_default() += 1;
            }
        }
        seen.later = Some(later);
        Ok(())
    }

    /// Asks one question; none where it was refused, an error where nobody answers any more.
    async fn ask(
        &mut self,
        what: &str,
        command: &'static str,
        arguments: Vec<String>,
    ) -> Result<Option<Value>, String> {
        let command = CustomCommand::new_static(command, self.slot.clone(), false);
        match timeout(QUESTION, self.client.custom::<Value, String>(command, arguments)).await {
            Ok(Ok(Value::Null)) => Ok(None),
            Ok(Ok(value)) => Ok(Some(value)),
            Ok(Err(error)) if error.details().contains("no such key") => Ok(None),
            Ok(Err(error)) if is_refusal(&error) => {
                if !self.unseen.iter().any(|(seen, _)| seen == what) {
                    self.unseen.push((what.to_owned(), error.details().to_owned()));
                }
                Ok(None)
            }
            Ok(Err(error)) => Err(format!("could not read {what}: {}", error.details())),
            Err(_) => Err(format!("no reply for {what} within {} s", QUESTION.as_secs())),
        }
    }
}

/// Says whether the server answered, though not what was asked.
fn is_refusal(error: &fred::error::Error) -> bool {
    use fred::error::ErrorKind;
    let said = error.details();
    ["NOPERM", "unknown command", "unknown subcommand", "syntax error", "wrong number", "ERR ", "WRONGTYPE", "NOGROUP"]
        .iter()
        .any(|word| said.contains(word))
        || !matches!(error.kind(), ErrorKind::IO | ErrorKind::Timeout | ErrorKind::Canceled | ErrorKind::Routing)
}

fn entry(value: Value) -> Option<EntrySeen> {
    let mut parts = array(value).into_iter();
    let id = parts.next().as_ref().and_then(id)?;
    let fields = strings(parts.next()?);
    let of = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
    let seq = of(field::SEQ);
    let dialect = Dialect::of(of(field::TYPE), of(field::DATA), seq, fields.contains_key(field::ORIG_ID));
    Some(EntrySeen { id, seq: seq.parse::<Seq>().ok().map(Seq::get), dialect })
}

fn array(value: Value) -> Vec<Value> {
    match value {
        Value::Array(values) => values,
        Value::Map(map) => map
            .inner()
            .into_iter()
            .flat_map(|(name, value)| [Value::String(name.into_string().unwrap_or_default().into()), value])
            .collect(),
        _ => Vec::new(),
    }
}

fn fields(value: Value) -> Fields {
    let mut values = array(value).into_iter();
    let mut fields = Fields::new();
    while let (Some(name), Some(value)) = (values.next(), values.next()) {
        fields.insert(name.as_string().unwrap_or_default(), value);
    }
    fields
}

fn strings(value: Value) -> BTreeMap<String, String> {
    fields(value).into_iter().map(|(name, value)| (name, value.as_string().unwrap_or_default())).collect()
}

fn number(value: &Value) -> Option<u64> {
    value.as_u64()
}

fn id(value: &Value) -> Option<StreamId> {
    value.as_string()?.parse().ok()
}
