//! The server: whether it keeps what it is given, and has room for it.

use crate::finding::Finding;
use crate::seen::{Policy, RedisSeen, Seen};
use crate::text;

/// What an entry takes, about (docs/operations.md, Sizing).
const ENTRY_BYTES: u64 = 600;

/// Judges the server.
pub(super) fn judge(seen: &Seen, findings: &mut Vec<Finding>) {
    let (policy, redis) = (&seen.policy, &seen.redis.seen);
    if !redis.info.is_empty() {
        server(policy, redis, findings);
        memory(policy, redis, findings);
        persistence(redis, findings);
    }
    settings(redis, findings);
    for (key, found, wanted) in &redis.wrong_types {
        findings.push(Finding::fail(
            "redis.keys",
            format!("{} is a {found}, expected a {wanted}", text::name(key)),
            "another program uses this key: set a different redis.keyPrefix, or remove the key",
        ));
    }
}

fn server(policy: &Policy, redis: &RedisSeen, findings: &mut Vec<Finding>) {
    const CHECK: &str = "redis.server";
    let version = redis.text("redis_version").unwrap_or("of unknown version");
    let at = format!("redis {version} at {}", policy.redis_url);
    let cluster = redis.text("cluster_enabled") == Some("1");
    let numbers: Vec<u64> = version.split('.').filter_map(|part| part.parse().ok()).collect();
    findings.push(match numbers[..] {
        [major, minor, ..] if (major, minor) < (6, 2) => {
            Finding::fail(CHECK, format!("{at} is too old"), "upgrade to 7 or later (6.2 is the minimum)")
        }
        _ if redis.text("loading") == Some("1") => {
            Finding::fail(CHECK, format!("{at} is still loading its data"), "wait until loading has finished")
        }
        _ if redis.text("role") == Some("slave") => Finding::fail(
            CHECK,
            format!("{at} is a read-only replica"),
            "use the address of the primary or of the Sentinels",
        ),
        _ if cluster && !policy.cluster => Finding::fail(
            CHECK,
            format!("{at} is a Redis Cluster node, but the address is not redis-cluster://"),
            "use redis-cluster:// and a redis.keyPrefix with a hash tag",
        ),
        [major, ..] if major < 7 => Finding::note(
            CHECK,
            format!("{at}: Redis before 7 does not report consumer group lag; unread entries are counted, up to 200"),
        ),
        _ => Finding::ok(CHECK, format!("{at}{}", if cluster { ", a Cluster" } else { "" })),
    });
    if let (Some(clients), Some(most)) =
        (redis.number("connected_clients"), redis.config.get("maxclients").and_then(|text| text.parse::<u64>().ok()))
        && clients * 10 >= most * 9
    {
        let found = format!("{clients} of {most} client connections in use");
        findings.push(Finding::warn(
            "redis.clients",
            found,
            "raise maxclients, or find out what is leaking connections",
        ));
    }
}

fn memory(policy: &Policy, redis: &RedisSeen, findings: &mut Vec<Finding>) {
    const CHECK: &str = "redis.memory";
    let eviction = redis.text("maxmemory_policy").or_else(|| redis.config.get("maxmemory-policy").map(String::as_str));
    if let Some(eviction) = eviction
        && eviction != "noeviction"
    {
        let found = format!("maxmemory-policy is {}: events are dropped when memory is full", text::name(eviction));
        let advice = "CONFIG SET maxmemory-policy noeviction, and change the config file";
        findings.push(if policy.allow_eviction {
            Finding::warn("redis.eviction", format!("{found} (allowed by redis.allowEviction)"), advice)
        } else {
            Finding::fail("redis.eviction", format!("{found}; ingest will refuse to start"), advice)
        });
    } else if eviction.is_some() {
        findings.push(Finding::ok("redis.eviction", "maxmemory-policy is noeviction"));
    }
    if let Some(evicted) = redis.number("evicted_keys").filter(|evicted| *evicted > 0) {
        findings.push(Finding::warn(
            "redis.evicted",
            format!("{evicted} keys have been evicted since Redis started, possibly from this pipeline"),
            "check that cursor, stream and groups are intact, and add memory",
        ));
    }
    let used = redis.number("used_memory").unwrap_or_default();
    let max = redis.number("maxmemory").filter(|max| *max > 0);
    let room = policy.max_len * ENTRY_BYTES;
    findings.push(match (max, redis.number("total_system_memory").filter(|total| *total > 0)) {
        (Some(max), _) if used * 100 >= max * policy.high_watermark => Finding::warn(
            CHECK,
            format!("{} of {} in use: ingest pauses above {} %", text::bytes(used), text::bytes(max), policy.high_watermark),
            "check stream.length and the groups for one that is behind or abandoned; otherwise raise maxmemory",
        ),
        (Some(max), _) if room * 100 > max * policy.high_watermark => Finding::warn(
            CHECK,
            format!(
                "maxmemory is {}, but a full stream of {} entries needs about {}",
                text::bytes(max),
                policy.max_len,
                text::bytes(room)
            ),
            "raise maxmemory or lower redis.maxStreamLen; otherwise ingest pauses before the stream reaches its cap",
        ),
        (Some(max), _) => Finding::ok(CHECK, format!("{} of {} in use", text::bytes(used), text::bytes(max))),
        (None, Some(total)) if 2 * room > total => Finding::warn(
            CHECK,
            format!(
                "maxmemory is not set and the machine has {}; a full stream of {} entries needs about {}, up to twice that during a rewrite",
                text::bytes(total),
                policy.max_len,
                text::bytes(room)
            ),
            "lower redis.maxStreamLen and set maxmemory below the machine's memory",
        ),
        (None, _) => Finding::note(CHECK, format!("{} in use, maxmemory is not set", text::bytes(used)))
            .advised("set it below the machine's memory, so that ingest pauses before the kernel kills Redis"),
    });
}

fn persistence(redis: &RedisSeen, findings: &mut Vec<Finding>) {
    const CHECK: &str = "redis.persistence";
    if redis.text("aof_last_write_status") == Some("err") {
        let found = "the last append-only file write failed: Redis refuses writes";
        findings.push(Finding::fail(CHECK, found, "check for a full disk"));
    } else if redis.text("rdb_last_bgsave_status") == Some("err")
        && redis.config.get("stop-writes-on-bgsave-error").is_none_or(|stop| stop == "yes")
    {
        let found = "the last snapshot failed: Redis refuses writes (MISCONF)";
        findings.push(Finding::fail(CHECK, found, "check for a full disk, or too little memory to fork"));
    } else if redis.text("aof_enabled") == Some("0") {
        findings.push(Finding::warn(
            CHECK,
            "appendonly is off: a restart loses everything since the last snapshot",
            "CONFIG SET appendonly yes, and change the config file; give ingest DATABASE_URL so it can re-read lost events",
        ));
    } else if redis.config.get("appendfsync").is_some_and(|fsync| fsync == "no") {
        findings
            .push(Finding::note(CHECK, "appendonly is on with appendfsync no: a machine crash can lose about 30 s"));
    } else if redis.text("aof_enabled") == Some("1") {
        findings.push(Finding::ok(CHECK, "appendonly is on"));
    }
}

fn settings(redis: &RedisSeen, findings: &mut Vec<Finding>) {
    let number = |name: &str| redis.config.get(name).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
    if let (wanted @ 1.., Some(replicas)) = (number("min-replicas-to-write"), redis.number("connected_slaves"))
        && replicas < wanted
    {
        findings.push(Finding::fail(
            "redis.replicas",
            format!("min-replicas-to-write is {wanted}, but {replicas} are connected: Redis refuses writes"),
            "restore the replicas, or lower the setting",
        ));
    }
    if let seconds @ 1..60 = number("timeout") {
        findings.push(Finding::warn(
            "redis.timeout",
            format!("timeout is {seconds} s: idle connections keep being closed and reopened"),
            "CONFIG SET timeout 0",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::level;
    use super::*;
    use crate::finding::Level;

    fn seen(info: &[(&str, &str)], config: &[(&str, &str)]) -> Seen {
        let mut seen = Seen::default();
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let usual =
            [("redis_version", "7.0.15"), ("role", "master"), ("maxmemory_policy", "noeviction"), ("aof_enabled", "1")];
        seen.redis.seen.info = usual.iter().map(owned).chain(info.iter().map(owned)).collect();
        seen.redis.seen.config = config.iter().map(owned).collect();
        seen.policy.max_len = 500_000;
        seen.policy.high_watermark = 80;
        seen
    }

    #[test]
    fn each_setting_that_hurts_is_named() {
        use Level::{Fail, Note, Ok, Warn};
        type Case<'a> = (&'a [(&'a str, &'a str)], &'a [(&'a str, &'a str)], &'a str, Level);
        let cases: &[Case<'_>] = &[
            (&[], &[], "redis.server", Ok),
            (&[("redis_version", "6.0.9")], &[], "redis.server", Fail),
            (&[("redis_version", "6.2.1")], &[], "redis.server", Note),
            (&[("redis_version", "?")], &[], "redis.server", Ok),
            (&[("role", "slave")], &[], "redis.server", Fail),
            (&[("loading", "1")], &[], "redis.server", Fail),
            (&[("cluster_enabled", "1")], &[], "redis.server", Fail),
            (&[("connected_clients", "95")], &[("maxclients", "100")], "redis.clients", Warn),
            (&[], &[], "redis.eviction", Ok),
            (&[("maxmemory_policy", "allkeys-lru")], &[], "redis.eviction", Fail),
            (&[("evicted_keys", "3")], &[], "redis.evicted", Warn),
            (&[], &[], "redis.memory", Note),
            (&[("used_memory", "9"), ("maxmemory", "10")], &[], "redis.memory", Warn),
            (&[("used_memory", "9"), ("maxmemory", "100000000")], &[], "redis.memory", Warn),
            (&[("used_memory", "9"), ("maxmemory", "8000000000")], &[], "redis.memory", Ok),
            (&[("total_system_memory", "500000000")], &[], "redis.memory", Warn),
            (&[], &[], "redis.persistence", Ok),
            (&[("aof_enabled", "0")], &[], "redis.persistence", Warn),
            (&[("aof_last_write_status", "err")], &[], "redis.persistence", Fail),
            (&[("rdb_last_bgsave_status", "err")], &[], "redis.persistence", Fail),
            (&[("rdb_last_bgsave_status", "err")], &[("stop-writes-on-bgsave-error", "no")], "redis.persistence", Ok),
            (&[], &[("appendfsync", "no")], "redis.persistence", Note),
            (&[("connected_slaves", "0")], &[("min-replicas-to-write", "1")], "redis.replicas", Fail),
            (&[], &[("timeout", "5")], "redis.timeout", Warn),
        ];
        for (info, config, check, wanted) in cases {
            assert_eq!(level(&seen(info, config), check), *wanted, "{info:?} {config:?} {check}");
        }
    }

    #[test]
    fn an_allowed_eviction_is_a_warning() {
        let mut seen = seen(&[("maxmemory_policy", "allkeys-lru")], &[]);
        seen.policy.allow_eviction = true;
        assert_eq!(level(&seen, "redis.eviction"), Level::Warn);
    }

    #[test]
    fn a_key_of_another_kind_is_a_failure() {
        let mut seen = Seen::default();
        seen.redis.seen.wrong_types.push(("firehose:events".into(), "list".into(), "stream".into()));
        assert_eq!(level(&seen, "redis.keys"), Level::Fail);
    }
}
