//! What Redis shows: writers, cursors, groups, settings, and little to those who may see little.

use std::time::Duration;

use penstock_doctor::Level;

use crate::clinic::{Clinic, STREAM};

const GROUP: &str = "firehose-processors";

#[tokio::test]
async fn python_is_seen_writing_and_our_lease_beside_it_is_a_failure() {
    let clinic = Clinic::new().await;
    clinic.python(1..2_101).await;
    let report = clinic.examine_while(async |at| clinic.python(2_101 + at..2_102 + at).await).await;
    report.says(Level::Ok, "stream.writers", "another system's ingest is writing");
    report.says(Level::Ok, "stream.writers", "python in");
    report.says(Level::Note, "cursor", "ingest would start at");
    clinic.redis(&["SET", "firehose:ingest:lease", "token", "PX", "60000"]).await;
    let report = clinic.examine_while(async |at| clinic.python(9_101 + at..9_102 + at).await).await;
    report.says(Level::Fail, "stream.writers", "two ingests are writing");
}

#[tokio::test]
async fn one_foreign_entry_behind_a_long_batch_of_ours_is_seen() {
    let clinic = Clinic::new().await;
    clinic.penstock(1..5).await;
    let batch = async |at: u64| {
        if at == 20 {
            clinic.penstock(5..1_500).await;
            clinic.python(9_000..9_001).await;
        }
    };
    let report = clinic.examine_for(Duration::from_secs(3), batch).await;
    report.says(Level::Fail, "stream.writers", "1495 penstock, 1 python");
}

#[tokio::test]
async fn two_of_theirs_at_once_are_a_failure_too() {
    let clinic = Clinic::new().await;
    clinic.typescript(1..10).await;
    let both = async |at| {
        clinic.python(10 + at..11 + at).await;
        clinic.typescript(10 + at..11 + at).await;
    };
    let report = clinic.examine_while(both).await;
    report.says(Level::Fail, "stream.writers", "two ingests are writing");
    report.says(Level::Fail, "stream.writers", "typescript");
}

#[tokio::test]
async fn our_ingest_is_told_with_its_cursor() {
    let clinic = Clinic::new().await;
    clinic.penstock(1..102).await;
    clinic.redis(&["SET", "firehose:ingest:lease", "token", "PX", "60000"]).await;
    clinic.redis(&["SET", "firehose:python_cursor", "101"]).await;
    clinic.redis(&["SET", "firehose:ingest:source", r#"{"host":"bsky.network","firstId":"1-0"}"#]).await;
    clinic.redis(&["HSET", "firehose:ingest:state", "cursor", "101"]).await;
    clinic
        .redis(&["SET", "firehose:status", r#"{"connected":true,"url":"wss://bsky.network","currentCursor":"101"}"#])
        .await;
    let report = clinic.examine().await;
    report.says(Level::Ok, "stream.writers", "connected to wss://bsky.network");
    report.says(Level::Ok, "cursor", "101 on bsky.network");
    clinic.redis(&["SET", "firehose:python_cursor", "77"]).await;
    clinic.examine().await.says(Level::Warn, "cursor", "moved back");
}

#[tokio::test]
async fn the_cursor_of_python_is_held_against_its_entries() {
    let clinic = Clinic::new().await;
    clinic.python(1..1_102).await;
    for (cursor, said) in
        [("1102", "1 ahead of the newest entry; Penstock's ingest would start at 1101"), ("701", "400 behind")]
    {
        clinic.redis(&["SET", "firehose:python_cursor", cursor]).await;
        clinic.examine().await.says(Level::Note, "cursor", said);
    }
}

#[tokio::test]
async fn what_a_restarted_worker_of_theirs_held_is_counted_with_its_name() {
    let clinic = Clinic::new().await.with("PENSTOCK_WORKER_CLAIM_TIME", "50ms");
    clinic.python(1..30).await;
    clinic.group(GROUP).await;
    clinic.read(GROUP, "worker-3-p1", 7).await;
    tokio::time::sleep(Duration::from_millis(80)).await;
    clinic.examine().await.says(
        Level::Warn,
        "groups.pending",
        "7 entries are pending with dead consumers (worker-3-p1)",
    );
    clinic.redis(&["SET", "firehose:consumer:ours:alive", "token", "PX", "60000"]).await;
    clinic.read(GROUP, "ours", 1).await;
    let report = clinic.examine().await;
    report.says(Level::Ok, &format!("groups.{GROUP}"), "read by 1 Penstock consumer");
    assert!(report.has("groups.pending"), "{report:?}");
}

#[tokio::test]
async fn entries_that_their_maxlen_took_unread_are_lost_and_told() {
    let clinic = Clinic::new().await;
    clinic.python(1..2_001).await;
    clinic.group(GROUP).await;
    clinic.read(GROUP, "python-worker-0", 100).await;
    clinic.examine().await.says(Level::Ok, "stream.trimmed", "no group lost");
    clinic.redis(&["XTRIM", STREAM, "MAXLEN", "500"]).await;
    let report = clinic.examine().await;
    report.says(Level::Fail, "stream.trimmed", "1400 trimmed unread, 100 trimmed before");
}

#[tokio::test]
async fn a_full_stream_and_another_readers_dead_group_are_warnings() {
    let clinic =
        Clinic::new().await.with("REDIS_MAX_STREAM_LEN", "100").with("PENSTOCK_INGEST_FOREIGN_GROUP_HOLD", "100ms");
    let clinic = clinic.with("PENSTOCK_WORKER_CLAIM_TIME", "50ms");
    clinic.python(1..91).await;
    clinic.group("osprey-consumers").await;
    clinic.read("osprey-consumers", "osprey-1", 1).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    let report = clinic.examine().await;
    report.says(Level::Warn, "stream.length", "90 entries, 90 %");
    report.says(Level::Warn, "groups.osprey-consumers", "inactive for");
    report.says(Level::Note, &format!("groups.{GROUP}"), "does not exist");
}

#[tokio::test]
async fn settings_that_lose_events_are_named() {
    let clinic = Clinic::new().await;
    clinic.redis(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru", "maxmemory", "50000000", "timeout", "5"]).await;
    let report = clinic.examine().await;
    report.says(Level::Fail, "redis.eviction", "allkeys-lru");
    report.says(Level::Warn, "redis.memory", "needs about");
    report.says(Level::Warn, "redis.timeout", "5 s");
    report.says(Level::Warn, "redis.persistence", "appendonly is off");
}

#[tokio::test]
async fn a_login_that_may_see_little_is_told_what_it_did_not_see() {
    let clinic = Clinic::new().await;
    clinic.python(1..30).await;
    clinic.group(GROUP).await;
    clinic
        .redis(&[
            "ACL",
            "SETUSER",
            "little",
            "on",
            ">hunter2",
            "~firehose:*",
            "+ping",
            "+get",
            "+xinfo",
            "+xrange",
            "+exists",
        ])
        .await;
    let url = clinic.var("REDIS_URL").replace("redis://", "redis://little:hunter2@");
    let report = clinic.with("REDIS_URL", &url).examine().await;
    for (what, refused) in
        [("INFO", "info"), ("CONFIG GET", "config"), ("XREVRANGE", "xrevrange"), ("db:record_counts", "hgetall")]
    {
        report.says(Level::Note, "redis.unseen", what);
        report.says(Level::Note, "redis.unseen", refused);
    }
    report.says(Level::Ok, "stream.length", "29 entries");
    assert_eq!(report.level(&format!("groups.{GROUP}")), Level::Warn);
    assert!(!report.0.to_text().contains("hunter2"), "{report:?}");
}

#[tokio::test]
async fn the_rights_that_the_manual_names_are_enough() {
    let manual = include_str!("../../../../docs/operations.md");
    let (_, rest) = manual.split_once("To see everything, the login needs").unwrap();
    let rights = rest.split('`').nth(1).unwrap();
    let clinic = Clinic::new().await;
    clinic.python(1..30).await;
    clinic.group(GROUP).await;
    clinic.read(GROUP, "a", 3).await;
    let user: Vec<&str> =
        ["ACL", "SETUSER", "viewer", "on", ">hunter2", "~*"].into_iter().chain(rights.split_whitespace()).collect();
    clinic.redis(&user).await;
    let url = clinic.var("REDIS_URL").replace("redis://", "redis://viewer:hunter2@");
    let report = clinic.with("REDIS_URL", &url).examine().await;
    assert!(!report.has("redis.unseen") && report.level("redis.server") == Level::Ok, "{}", report.0.to_text());
}

#[tokio::test]
async fn names_of_others_cannot_break_a_line() {
    let clinic = Clinic::new().await;
    clinic.python(1..3).await;
    clinic.group("a\nok   b: \u{1b}[2J").await;
    clinic.group(&"x".repeat(5_000)).await;
    clinic.redis(&["SET", "firehose:pipeline", "{\"pipeline\":\"o\\nther\",\"incarnation\":\"i\"}"]).await;
    let report = clinic.examine().await;
    report.says(Level::Fail, "claim", "this prefix is claimed by");
    let text = report.0.to_text();
    assert_eq!(text.lines().count(), report.0.findings.len() + 1, "{text}");
    assert!(!text.contains('\u{1b}') && text.lines().all(|line| line.len() < 800), "{text}");
}

#[tokio::test]
async fn keys_of_another_kind_are_failures_and_do_not_end_the_look() {
    let clinic = Clinic::new().await;
    for key in [STREAM, "firehose:ingest:state", "db:record_counts", "firehose:dead-letters"] {
        clinic.redis(&["LPUSH", key, "x"]).await;
    }
    let report = clinic.examine().await;
    report.says(Level::Fail, "redis.keys", "firehose:events is a list");
    report.says(Level::Fail, "redis.keys", "db:record_counts is a list");
    assert!(report.has("claim") && !report.has("redis.unseen"), "{report:?}");
}
