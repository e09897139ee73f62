//! What each part may have to do in Redis, and whether its user may.
//!
//! Who asks needs no right to `ACL`: a script knows what its user may do (`redis.acl_check_cmd`, Redis 7 and Valkey). A server that
//! cannot tell is tried instead, command by command, as the work comes.

use std::collections::BTreeSet;
use std::time::Duration;

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::{ClientLike, LuaInterface};
use fred::types::ClusterHash;
use fred::types::config::Options;

use crate::keys::Keys;
use crate::redis::{RedisError, is_forbidden};
use crate::settings::Settings;

/// How often it is asked again: a user may be given more, or less, at any time.
const AGAIN: Duration = Duration::from_secs(30);

/// A part that has a user of its own, or could have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `penstock ingest`.
    Ingest,
    /// `penstock worker`.
    Worker,
    /// What a worker and the dashboard need besides where the message buffer is enabled.
    MessageBuffer,
    /// `penstock dashboard`.
    Dashboard,
    /// `penstock operator`.
    Operator,
    /// `penstock doctor`.
    Doctor,
}

/// What a user lacks, as rules of `ACL SETUSER`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Commands and keys without which the part cannot do its work.
    pub needed: Vec<String>,
    /// Channels, and the commands for them: without them the rest works.
    pub channels: Vec<String>,
}

/// What a part asks of Redis.
struct Rights {
    /// Commands, as rules name them.
    needed: &'static [&'static str],
    /// Commands without which it does less.
    optional: &'static [&'static str],
    /// Patterns of keys, without the prefix.
    keys: &'static [&'static [&'static str]],
    /// Some of those keys, to ask for.
    asked: fn(&Keys) -> Vec<String>,
    /// Channels, without the prefix, and whether they are published to or subscribed to.
    channels: &'static [(&'static str, &'static str)],
}

const PIPELINE: &str = "firehose:*";
const OWN: &[&str] = &[PIPELINE];
const COUNTS: &[&str] = &["cluster:metrics", "db:record_counts"];

/// The AppView's cache, which has no prefix: whoever may not delete there leaves it to its expiry.
const CACHE: &str = "atproto:cache:*";

const MESSAGES: &[&str] = &[
    "pending_messages*",
    "queued_message_ids",
    "persisted_message_ids",
    "total_messages",
    "total_batches",
    "current_rps",
    "avg_latency_ms",
    "p95_latency_ms",
    "p99_latency_ms",
    "worker_buffer_size",
    "last_batch_id",
    "last_batch_size",
    "last_batch_time",
    "last_persisted_ids",
];

/// How each command is asked for: `@` is a key, `&` a channel.
const COMMANDS: &[(&str, &[&str])] = &[
    ("blmove", &["@", "@", "LEFT", "RIGHT", "1"]),
    ("config|get", &["maxmemory"]),
    ("del", &["@"]),
    ("eval", &["return 1", "1", "@"]),
    ("exists", &["@"]),
    ("expire", &["@", "1"]),
    ("get", &["@"]),
    ("hdel", &["@", "f"]),
    ("hexists", &["@", "f"]),
    ("hget", &["@", "f"]),
    ("hgetall", &["@"]),
    ("hincrby", &["@", "f", "1"]),
    ("hkeys", &["@"]),
    ("hmget", &["@", "f"]),
    ("hset", &["@", "f", "v"]),
    ("hsetnx", &["@", "f", "v"]),
    ("incr", &["@"]),
    ("incrby", &["@", "1"]),
    ("info", &["memory"]),
    ("llen", &["@"]),
    ("lmove", &["@", "@", "LEFT", "RIGHT"]),
    ("lpush", &["@", "v"]),
    ("lrange", &["@", "0", "1"]),
    ("lrem", &["@", "1", "v"]),
    ("ltrim", &["@", "0", "1"]),
    ("memory|usage", &["@"]),
    ("mget", &["@"]),
    ("pexpire", &["@", "1"]),
    ("ping", &[]),
    ("publish", &["&", "m"]),
    ("role", &[]),
    ("rpush", &["@", "v"]),
    ("set", &["@", "v"]),
    ("subscribe", &["&"]),
    ("time", &[]),
    ("type", &["@"]),
    ("unlink", &["@"]),
    ("xack", &["@", "g", "1-1"]),
    ("xadd", &["@", "*", "f", "v"]),
    ("xautoclaim", &["@", "g", "c", "1", "0"]),
    ("xclaim", &["@", "g", "c", "1", "1-1"]),
    ("xdel", &["@", "1-1"]),
    ("xgroup|create", &["@", "g", "0"]),
    ("xgroup|createconsumer", &["@", "g", "c"]),
    ("xgroup|delconsumer", &["@", "g", "c"]),
    ("xgroup|destroy", &["@", "g"]),
    ("xinfo|consumers", &["@", "g"]),
    ("xinfo|groups", &["@"]),
    ("xinfo|stream", &["@"]),
    ("xlen", &["@"]),
    ("xpending", &["@", "g"]),
    ("xrange", &["@", "-", "+"]),
    ("xreadgroup", &["GROUP", "g", "c", "STREAMS", "@", ">"]),
    ("xrevrange", &["@", "+", "-"]),
    ("xsetid", &["@", "1-1"]),
    ("xtrim", &["@", "MAXLEN", "1"]),
    ("zadd", &["@", "1", "m"]),
    ("zcard", &["@"]),
    ("zincrby", &["@", "1", "m"]),
    ("zrange", &["@", "0", "1"]),
    ("zrangebylex", &["@", "-", "+"]),
    ("zrangebyscore", &["@", "0", "1"]),
    ("zrem", &["@", "m"]),
    ("zrevrange", &["@", "0", "1"]),
    ("zscore", &["@", "m"]),
];

/// Asks of each command whether this user may run it; answers with the places of those it may not, or which the server lacks.
const ASK: &str = "\
local refused = {}
for at, asked in ipairs(redis.acl_check_cmd and cjson.decode(ARGV[1]) or {}) do
  local known, may = pcall(redis.acl_check_cmd, unpack(asked))
  if not (known and may) then
    refused[#refused + 1] = at
  end
end
return refused";

// === impl Part ===

impl Part {
    /// All parts.
    pub const ALL: [Self; 6] =
        [Self::Ingest, Self::Worker, Self::MessageBuffer, Self::Dashboard, Self::Operator, Self::Doctor];

    /// Names it in words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Worker => "worker",
            Self::MessageBuffer => "message buffer",
            Self::Dashboard => "dashboard",
            Self::Operator => "operator",
            Self::Doctor => "doctor",
        }
    }

    fn rights(self) -> Rights {
        match self {
            Self::Ingest => Rights {
                needed: &[
                    "del",
                    "eval",
                    "exists",
                    "expire",
                    "get",
                    "hdel",
                    "hget",
                    "hgetall",
                    "hincrby",
                    "hset",
                    "mget",
                    "pexpire",
                    "ping",
                    "set",
                    "time",
                    "xack",
                    "xadd",
                    "xdel",
                    "xgroup|create",
                    "xgroup|destroy",
                    "xinfo|consumers",
                    "xinfo|groups",
                    "xinfo|stream",
                    "xlen",
                    "xpending",
                    "xrange",
                    "xrevrange",
                    "xsetid",
                    "xtrim",
                    "zadd",
                    "zcard",
                    "zincrby",
                    "zrangebylex",
                    "zrem",
                    "zrevrange",
                    "zscore",
                ],
                optional: &["client|id", "info", "lpush", "ltrim", "role", "type"],
                keys: &[OWN],
                asked: |keys| {
                    let more = [
                        keys.ingest_lease(),
                        keys.ingest_source(),
                        keys.incarnation(),
                        keys.status(),
                        keys.recent_events(),
                        keys.desynchronized(),
                    ];
                    streams(keys).into_iter().chain(more).chain([keys.raw_letters()]).collect()
                },
                channels: &[("publish", "firehose:events:broadcast"), ("subscribe", "firehose:ingest:control")],
            },
            Self::Worker => Rights {
                needed: &[
                    "del",
                    "eval",
                    "exists",
                    "expire",
                    "get",
                    "hdel",
                    "hexists",
                    "hget",
                    "hincrby",
                    "hkeys",
                    "hmget",
                    "hset",
                    "hsetnx",
                    "incrby",
                    "pexpire",
                    "ping",
                    "set",
                    "time",
                    "xack",
                    "xadd",
                    "xautoclaim",
                    "xclaim",
                    "xdel",
                    "xgroup|create",
                    "xgroup|createconsumer",
                    "xgroup|delconsumer",
                    "xinfo|consumers",
                    "xinfo|groups",
                    "xinfo|stream",
                    "xlen",
                    "xpending",
                    "xrange",
                    "xreadgroup",
                    "zadd",
                    "zcard",
                    "zincrby",
                    "zrangebylex",
                    "zrem",
                    "zrevrange",
                    "zscore",
                ],
                optional: &[
                    "client|id",
                    "hlen",
                    "info",
                    "llen",
                    "lpush",
                    "ltrim",
                    "memory|usage",
                    "role",
                    "scard",
                    "strlen",
                    "type",
                    "unlink",
                ],
                keys: &[OWN, COUNTS],
                asked: |keys| {
                    let more = [keys.incarnation(), keys.pipeline(), keys.dead_letters(), keys.counts_published()];
                    let more = more.into_iter().chain([keys.desynchronized()]);
                    let counts = [keys.cluster_metrics(), keys.record_counts(), keys.consumer_alive("w")];
                    streams(keys).into_iter().chain(more).chain(counts).collect()
                },
                channels: &[],
            },
            Self::MessageBuffer => Rights {
                needed: &[
                    "blmove",
                    "del",
                    "eval",
                    "exists",
                    "expire",
                    "get",
                    "hdel",
                    "hgetall",
                    "hincrby",
                    "hkeys",
                    "incr",
                    "incrby",
                    "llen",
                    "lmove",
                    "lpush",
                    "lrange",
                    "lrem",
                    "ltrim",
                    "pexpire",
                    "rpush",
                    "set",
                    "time",
                    "zadd",
                    "zrange",
                    "zrangebyscore",
                    "zrem",
                    "zscore",
                ],
                optional: &[],
                keys: &[MESSAGES],
                asked: messages,
                channels: &[("publish", "batch_notifications")],
            },
            Self::Dashboard => Rights {
                needed: &[
                    "del",
                    "eval",
                    "exists",
                    "get",
                    "hdel",
                    "hget",
                    "hgetall",
                    "hmget",
                    "hset",
                    "llen",
                    "lpush",
                    "lrange",
                    "ltrim",
                    "ping",
                    "set",
                    "time",
                    "type",
                    "xadd",
                    "xdel",
                    "xinfo|consumers",
                    "xinfo|groups",
                    "xinfo|stream",
                    "xlen",
                    "xpending",
                    "xrange",
                    "xrevrange",
                    "xtrim",
                    "zincrby",
                    "zrange",
                    "zrangebylex",
                    "zrem",
                ],
                optional: &["client|id", "info", "role"],
                keys: &[OWN, COUNTS, &["pending_messages*"]],
                asked: |keys| streams(keys).into_iter().chain(shown(keys)).chain([keys.pending_messages()]).collect(),
                channels: &[
                    ("subscribe", "firehose:events:broadcast"),
                    ("subscribe", "batch_notifications"),
                    ("publish", "firehose:ingest:control"),
                ],
            },
            Self::Operator => Rights {
                needed: &[
                    "del",
                    "eval",
                    "exists",
                    "get",
                    "hkeys",
                    "hmget",
                    "ping",
                    "type",
                    "unlink",
                    "xgroup|destroy",
                    "xinfo|consumers",
                    "xinfo|groups",
                    "xinfo|stream",
                    "xpending",
                    "xrange",
                ],
                optional: &["client|id", "info", "role", "time"],
                keys: &[OWN, COUNTS, MESSAGES],
                asked: |keys| streams(keys).into_iter().chain(shown(keys)).chain(messages(keys)).collect(),
                channels: &[],
            },
            Self::Doctor => Rights {
                needed: &[
                    "exists",
                    "get",
                    "hget",
                    "hgetall",
                    "ping",
                    "time",
                    "type",
                    "xinfo|consumers",
                    "xinfo|groups",
                    "xinfo|stream",
                    "xlen",
                    "xpending",
                    "xrange",
                    "xrevrange",
                ],
                optional: &["client|id", "config|get", "eval", "info", "role"],
                keys: &[OWN, COUNTS, &["pending_messages*"]],
                asked: |keys| streams(keys).into_iter().chain(shown(keys)).collect(),
                channels: &[],
            },
        }
    }

    /// Returns the commands without which it cannot do its work, and those without which it does less.
    #[must_use]
    pub fn commands(self) -> (&'static [&'static str], &'static [&'static str]) {
        let Rights { needed, optional, .. } = self.rights();
        (needed, optional)
    }

    /// Returns the rules of a user that may do everything which this part does, and nothing else: keys, channels, commands.
    #[must_use]
    pub fn rules(self, keys: &Keys) -> Vec<String> {
        let Rights { needed, optional, channels, .. } = self.rights();
        let mut rules = Vec::new();
        // What comes on top of another part leaves that part's rules alone.
        if self != Self::MessageBuffer {
            rules.extend(["resetkeys", "resetchannels", "-@all"].map(str::to_owned));
        }
        rules.extend(self.patterns(keys).into_iter().map(|pattern| format!("~{pattern}")));
        rules.extend(self.channels(keys).into_iter().map(|(_, channel)| format!("&{}", escaped(&channel))));
        let of_channels: BTreeSet<&str> = channels.iter().map(|(command, _)| *command).collect();
        rules.extend(needed.iter().chain(optional).copied().chain(of_channels).map(|command| format!("+{command}")));
        rules
    }

    /// Returns the patterns of the keys that it touches.
    fn patterns(self, keys: &Keys) -> Vec<String> {
        let prefix = keys.prefix().to_string();
        let mut patterns: Vec<String> = self
            .rights()
            .keys
            .iter()
            .copied()
            .flatten()
            .map(|pattern| format!("{}{pattern}", escaped(&prefix)))
            .collect();
        // Names that a setting gives are taken as they are.
        let own = format!("{prefix}{}", PIPELINE.trim_end_matches('*'));
        if self != Self::MessageBuffer {
            let named = [keys.stream(), keys.bulk(), keys.cursor()].into_iter().filter(|name| !name.starts_with(&own));
            patterns.extend(named.map(escaped));
        }
        if self == Self::Worker {
            patterns.push(CACHE.to_owned());
        }
        patterns
    }

    fn channels(self, keys: &Keys) -> Vec<(&'static str, String)> {
        let prefix = keys.prefix().to_string();
        self.rights().channels.iter().map(|(command, channel)| (*command, format!("{prefix}{channel}"))).collect()
    }

    /// Lists keys that it touches, and for each the rule that allows it.
    fn keys(self, keys: &Keys) -> Vec<(String, String)> {
        let patterns = self.patterns(keys);
        let rule = |name: &str| {
            let fits = |pattern: &&String| match pattern.strip_suffix('*') {
                Some(begin) => name.starts_with(&unescaped(begin)),
                None => name == unescaped(pattern),
            };
            format!("~{}", patterns.iter().find(fits).unwrap_or(&escaped(name)))
        };
        (self.rights().asked)(keys).into_iter().map(|name| (rule(&name), name)).collect()
    }
}

fn streams(keys: &Keys) -> [String; 4] {
    [keys.stream().to_owned(), keys.bulk().to_owned(), keys.cursor().to_owned(), keys.ingest_state()]
}

fn shown(keys: &Keys) -> [String; 5] {
    [keys.status(), keys.dead_letters(), keys.raw_letters(), keys.record_counts(), keys.cluster_metrics()]
}

fn messages(keys: &Keys) -> Vec<String> {
    let mut names = vec![keys.pending_messages(), keys.messages_taken("w"), keys.queued_message_ids()];
    names.extend([keys.persisted_message_ids(), keys.current_rps(), keys.worker_buffer_size()]);
    names.extend(keys.message_totals().into_iter().chain(keys.last_batch()).chain(keys.message_latency()));
    names
}

// === impl Missing ===

impl Missing {
    /// Says whether nothing is missing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.needed.is_empty() && self.channels.is_empty()
    }

    /// Returns all of it, as rules for `ACL SETUSER`.
    #[must_use]
    pub fn rules(&self) -> String {
        let rules: Vec<&str> = self.needed.iter().chain(&self.channels).map(String::as_str).collect();
        rules.join(" ")
    }
}

/// Asks what the user of this connection lacks for these parts.
///
/// # Errors
/// Redis does not answer.
pub async fn missing(client: &Client, keys: &Keys, parts: &[Part]) -> Result<Missing, Error> {
    let (mut rules, mut asked): (Vec<(bool, String)>, Vec<Vec<String>>) = (Vec::new(), Vec::new());
    let mut ask = |is_channel: bool, rule: String, command: &str, key: &str| {
        if let Some(question) = question(command, key) {
            rules.push((is_channel, rule));
            asked.push(question);
        }
    };
    for part in parts {
        let names = part.keys(keys);
        let Some((_, first)) = names.first() else { continue };
        for command in part.rights().needed {
            ask(false, format!("+{command}"), command, first);
        }
        for (rule, name) in &names {
            ask(false, rule.clone(), "get", name);
        }
        for (command, channel) in part.channels(keys) {
            ask(true, format!("+{command} &{}", escaped(&channel)), command, &channel);
        }
    }
    let asked = serde_json::to_string(&asked).unwrap_or_default();
    let options = Options { cluster_hash: Some(ClusterHash::from(keys.stream())), ..Options::default() };
    let refused: Result<Vec<usize>, Error> =
        client.with_options(&options).eval(ASK, Vec::<String>::new(), vec![asked]).await;
    let refused = match refused {
        Ok(refused) => refused,
        Err(error) if is_forbidden(&error) => {
            return Ok(Missing { needed: vec!["+eval".to_owned()], channels: Vec::new() });
        }
        Err(error) => return Err(error),
    };
    let mut missing = Missing::default();
    for (is_channel, rule) in refused.into_iter().filter_map(|at| rules.get(at.checked_sub(1)?)) {
        let list = if *is_channel { &mut missing.channels } else { &mut missing.needed };
        if !list.contains(rule) {
            list.push(rule.clone());
        }
    }
    // Where the stream is out of reach, so is every command on it: the commands say nothing then.
    if parts.iter().any(|part| is_all(*part, &missing)) {
        missing.needed.retain(|rule| rule.starts_with('~'));
    }
    Ok(missing)
}

/// Says whether every command of a part that takes a key is missing.
fn is_all(part: Part, missing: &Missing) -> bool {
    let has_key =
        |command: &str| question(command, "k").is_some_and(|question| question.iter().any(|word| word == "k"));
    let mut with_key = part.rights().needed.iter().filter(|command| has_key(command));
    with_key.all(|command| missing.needed.contains(&format!("+{command}")))
}

/// Refuses a user that lacks what these parts cannot do without; without their channels they work, and [`watch`] tells.
///
/// # Errors
/// As [`missing`], and what is missing.
pub async fn require(settings: &Settings, client: &Client, parts: &[Part]) -> Result<(), RedisError> {
    let url = settings.redis_url.to_string();
    let asked = missing(client, &settings.keys, parts).await;
    let missing = asked.map_err(|source| RedisError::Ask { url: url.clone(), what: "its permissions", source })?;
    if missing.needed.is_empty() {
        return Ok(());
    }
    Err(RedisError::Permissions { url, part: spoken(parts), missing: missing.rules() })
}

/// Tells what the user of this connection lacks, at once and then every 30 s, until dropped: `tell` gets a sentence, or none where it
/// lacks nothing.
pub async fn watch(settings: &Settings, client: &Client, parts: &[Part], mut tell: impl FnMut(Option<String>)) {
    let mut told: Option<Missing> = None;
    loop {
        // A Redis that is away tells so elsewhere.
        if let Ok(missing) = missing(client, &settings.keys, parts).await {
            let rules = missing.rules();
            let sentence = (!missing.is_empty()).then(|| {
                format!("this user of {} lacks what {} needs: add {rules}", settings.redis_url, spoken(parts))
            });
            if told.as_ref() != Some(&missing) {
                let part = spoken(parts);
                match (&sentence, &told) {
                    (Some(_), _) => {
                        tracing::error!(part, rules, "redis user lacks permissions, add these rules to its acl");
                    }
                    (None, Some(_)) => tracing::info!(part, "redis user has all permissions again"),
                    (None, None) => {}
                }
                told = Some(missing);
            }
            tell(sentence);
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn spoken(parts: &[Part]) -> String {
    let names: Vec<&str> = parts.iter().map(|part| part.name()).collect();
    names.join(" and ")
}

/// Returns how a command is asked for; none for one that is not known here.
fn question(command: &str, name: &str) -> Option<Vec<String>> {
    let (_, arguments) = COMMANDS.iter().find(|(known, _)| *known == command)?;
    let words = command.split('|').map(str::to_uppercase);
    Some(
        words
            .chain(arguments.iter().map(|word| if matches!(*word, "@" | "&") { name } else { word }.to_owned()))
            .collect(),
    )
}

/// Writes a name so that as a pattern it matches only itself.
fn escaped(name: &str) -> String {
    let mut pattern = String::with_capacity(name.len());
    for letter in name.chars() {
        if matches!(letter, '*' | '?' | '[' | ']' | '\\' | '^') {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern
}

fn unescaped(pattern: &str) -> String {
    let (mut name, mut letters) = (String::with_capacity(pattern.len()), pattern.chars());
    while let Some(letter) = letters.next() {
        name.push(if letter == '\\' { letters.next().unwrap_or(letter) } else { letter });
    }
    name
}

#[cfg(test)]
mod tests;
