//! Whatever keeps a pipeline on a cluster from working is named in its status soon, and withdrawn when it is over.
//!
//! One line for each cause, for people who compare: seconds until it is said, the sentence, seconds until it is withdrawn.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tokio::time::sleep;

use super::cluster::{Cluster, Part};
use super::stage::{RATE, Stage};

/// How soon a cause is to be said.
const SOON: Duration = Duration::from_secs(15);

/// How much later it may be on a machine that has much else to do, before the test counts it as never.
const PATIENCE: Duration = Duration::from_secs(180);

/// How often one looks.
const LOOK: Duration = Duration::from_millis(250);

/// How many events there are: the stage's second group reads none of them here, so the stream keeps those of every pipeline, and
/// reading that was paused would not go on above the low watermark.
const EVENTS: u64 = 30_000;

/// A cause: the condition that tells it, its reason, and a part of the sentence.
struct Cause(&'static str, &'static str, &'static str, &'static str);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster with running pods: make e2e"]
async fn each_cause_is_named_and_withdrawn() {
    let stage = Stage::set().await;
    let cluster = &stage.cluster;
    cluster.helm("install", &stage.operator_values()).await;
    let relay = stage.relay_of(EVENTS, RATE).await;
    let urls = [stage.redis_url(), stage.postgres_url()];

    // A pipeline that has never run.
    let (_, place) = urls[1].split_once('@').unwrap();
    let wrong = format!("postgres://penstock:wrong@{place}");
    let elsewhere = format!("postgres://penstock@{}:1/penstock", stage.host());
    let absent = format!("{}-absent", urls[1]);
    let fresh = [
        (elsewhere, Cause("PostgreSQL elsewhere", "DatabaseReachable", "DatabaseUnreachable", "refused")),
        (wrong, Cause("a wrong password", "DatabaseReachable", "Database", "authentication failed")),
        (absent, Cause("a missing database", "DatabaseReachable", "Database", "does not exist")),
    ];
    for (url, cause) in fresh {
        cluster.secret("penstock-dev-postgres", &url).await;
        let since = Instant::now();
        cluster.apply(&stage.pipeline(&relay.url, "Delete")).await;
        let said = told(cluster, &cause, since).await;
        cluster.secret("penstock-dev-postgres", &urls[1]).await;
        withdrawn(cluster, &cause, said, Instant::now()).await;
        cluster.kubectl("delete fhp bluesky --timeout=180s").await;
        cluster.until("all children are gone", async || cluster.children().await.is_empty()).await;
    }

    cluster.apply(&stage.pipeline(&relay.url, "Delete")).await;
    cluster.is_ready().await;
    let frozen = Cause("a frozen PostgreSQL", "DatabaseReachable", "DatabaseUnreachable", "does not answer");
    let processes = family(stage.postgres_pid());
    round(cluster, &frozen, || signal(&processes, Signal::SIGSTOP), || signal(&processes, Signal::SIGCONT)).await;

    let read_only = Cause("a read-only PostgreSQL", "DatabaseReachable", "DatabaseRefuses", "read-only");
    stage.set_read_only(true).await;
    let said = told(cluster, &read_only, Instant::now()).await;
    stage.set_read_only(false).await;
    withdrawn(cluster, &read_only, said, Instant::now()).await;

    let full = Cause("a full Redis", "RedisReachable", "RedisFull", "is full");
    stage.limit_redis("1mb").await;
    let said = told(cluster, &full, Instant::now()).await;
    stage.limit_redis("0").await;
    withdrawn(cluster, &full, said, Instant::now()).await;

    let redis = family(stage.redis_pid());
    let away = Cause("a frozen Redis", "RedisReachable", "RedisUnreachable", "");
    round(cluster, &away, || signal(&redis, Signal::SIGSTOP), || signal(&redis, Signal::SIGCONT)).await;

    let image = Cause("an image that is nowhere", "Ready", "ImagePullBackOff", "cannot pull its image");
    cluster
        .patch(&json!({"spec": {"image": {"reference": "localhost/nowhere:1", "pullPolicy": "IfNotPresent"}}}))
        .await;
    let said = told(cluster, &image, Instant::now()).await;
    cluster.patch(&json!({"spec": {"image": null}})).await;
    withdrawn(cluster, &image, said, Instant::now()).await;

    let quota = Cause("a quota", "Ready", "FailedCreate", "exceeded quota");
    let none = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}});
    cluster.apply(&none.to_string()).await;
    let since = Instant::now();
    cluster.delete_pods(Part::Ingest, true).await;
    let said = told(cluster, &quota, since).await;
    cluster.kubectl("delete resourcequota none").await;
    withdrawn(cluster, &quota, said, Instant::now()).await;

    let secret = Cause("a missing Secret", "Ready", "SecretMissing", "penstock-dev-redis");
    cluster.kubectl("delete secret penstock-dev-redis").await;
    let said = told(cluster, &secret, Instant::now()).await;
    cluster.secret("penstock-dev-redis", &urls[0]).await;
    withdrawn(cluster, &secret, said, Instant::now()).await;

    cluster.kubectl("delete fhp bluesky --timeout=180s").await;
    cluster.helm("uninstall", &[""; 0]).await;
}

async fn round(cluster: &Cluster, cause: &Cause, begin: impl FnOnce(), end: impl FnOnce()) {
    begin();
    let said = told(cluster, cause, Instant::now()).await;
    end();
    withdrawn(cluster, cause, said, Instant::now()).await;
}

/// Waits until the cause is said; returns after how long, and the sentence.
async fn told(cluster: &Cluster, Cause(what, kind, reason, says): &Cause, since: Instant) -> (Duration, String) {
    loop {
        let conditions = cluster.conditions().await;
        let of = |kind: &str| conditions.iter().find(|one| one["type"] == kind);
        let text =
            |kind: &str, field: &str| of(kind).and_then(|one| one[field].as_str()).unwrap_or_default().to_owned();
        if text(kind, "reason").starts_with(reason)
            && text(kind, "message").contains(says)
            && text("Ready", "status") == "False"
        {
            let message = text("Ready", "message");
            assert!(!message.contains("wrong@"), "{what}: a password is shown: {message}");
            return (since.elapsed(), message);
        }
        assert!(since.elapsed() < PATIENCE, "{what} is not said: {conditions:#?}");
        sleep(LOOK).await;
    }
}

async fn withdrawn(cluster: &Cluster, Cause(what, ..): &Cause, said: (Duration, String), since: Instant) {
    cluster.is_ready().await;
    let (after, message) = said;
    let late = if after > SOON { " (late)" } else { "" };
    println!(
        "e2e: | {what} | {:.1} s{late} | {message} | {:.1} s |",
        after.as_secs_f64(),
        since.elapsed().as_secs_f64()
    );
}

/// A process and its children.
fn family(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().map(|child| child.parse().unwrap()).chain([pid]).collect()
}

fn signal(processes: &[u32], signal: Signal) {
    for process in processes {
        // A child may have ended meanwhile.
        let _ = kill(Pid::from_raw(process.cast_signed()), signal);
    }
}
