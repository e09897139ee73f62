//! A pipeline in each phase, by the word of the tools that wait for one: kstatus (Helm's `--wait`, Flux) and Argo CD.
//!
//! kstatus is a Go module: `scripts/test-kstatus.sh` builds `tests/kstatus` and names the program in `PENSTOCK_KSTATUS`. Argo CD's
//! script is Lua.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use kube::api::{DeleteParams, Patch, PatchParams};
use penstock_core::backfill::BackfillState;
use penstock_operator::crd::BackfillPhase;
use serde_json::{Value, json};

use crate::backfills;
use crate::cluster::Nodes;
use crate::healer::Healer;
use crate::operator::Operator;
use crate::redis::Redis;
use crate::rig::{FirehoseBackfill, FirehosePipeline, Rig, is_ready, reason};

/// What Argo CD runs to know how a resource is.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/argocd/health.lua");

/// Gives the script one object in the way that Argo CD does, and prints what it answers.
const HARNESS: &str = r#"
obj = load("return " .. io.read("a"))()
local health = dofile(os.getenv("SCRIPT"))
print(health.status)
print(health.message)
"#;

/// An object, what kstatus is to say of it, and what Argo CD's script.
struct Case {
    what: &'static str,
    object: Value,
    kstatus: &'static str,
    argo: &'static str,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_that_wait_for_a_pipeline_read_what_is_so() {
    let Some(rig) = Rig::new("phases").await else { return };
    let redis = Redis::start().await;
    redis.flow("").await;
    let mut cases = Vec::new();
    let mut case = |what, object: Value, kstatus, argo| cases.push(Case { what, object, kstatus, argo });

    // Nobody has looked at it.
    let unseen = rig.create("p", json!({ "redis": { "url": redis.url() } })).await;
    case("new", serde_json::to_value(unseen).unwrap(), "InProgress", "Progressing");
    let operator = Operator::start(&rig).await;
    rig.until::<FirehosePipeline>("p", "migrating", |p| reason(p, "Ready") == Some("Migrating")).await;
    case("migrating", object(&rig, "p").await, "InProgress", "Progressing");
    let nodes = Nodes::start(&rig);
    rig.until::<FirehosePipeline>("p", "ready", is_ready).await;
    case("running", object(&rig, "p").await, "Current", "Healthy");

    // What nobody has looked at yet is not done, whatever the status says.
    drop(operator);
    rig.change("p", json!({ "workers": { "batchSize": 77 } })).await;
    case("changed", object(&rig, "p").await, "InProgress", "Progressing");
    drop(nodes);
    let _operator = Operator::start(&rig).await;
    rig.until::<FirehosePipeline>("p", "rolling out", |p| {
        reason(p, "Reconciling") == Some("RollingOut") && observed(p) == p.metadata.generation
    })
    .await;
    case("rolling out", object(&rig, "p").await, "InProgress", "Progressing");
    let _nodes = Nodes::start(&rig);
    rig.until::<FirehosePipeline>("p", "ready", is_ready).await;

    // A hiccup of the database fails no release.
    let trouble = r#"{"part":"worker","process":"w","text":"postgresql_db:_does_not_answer:_connection_refused"}"#;
    redis.command(&format!("SET firehose:trouble:postgresql {trouble}")).await;
    rig.until::<FirehosePipeline>("p", "without a database", |p| reason(p, "Ready") == Some("DatabaseRefuses")).await;
    case("without a database", object(&rig, "p").await, "InProgress", "Degraded");
    redis.command("DEL firehose:trouble:postgresql").await;
    rig.until::<FirehosePipeline>("p", "ready", is_ready).await;

    rig.change("p", json!({ "suspend": true })).await;
    rig.until::<FirehosePipeline>("p", "suspended", |p| {
        reason(p, "Reconciling") == Some("Suspended") && observed(p) == p.metadata.generation
    })
    .await;
    case("suspended", object(&rig, "p").await, "Current", "Suspended");
    rig.change("p", json!({ "suspend": false, "relay": { "dataTimeout": "1ms" } })).await;
    rig.until::<FirehosePipeline>("p", "refused", |p| reason(p, "Ready") == Some("InvalidSpec")).await;
    case("refused", object(&rig, "p").await, "Failed", "Degraded");
    rig.change("p", json!({ "relay": { "dataTimeout": null } })).await;
    rig.until::<FirehosePipeline>("p", "ready", is_ready).await;
    case("mended", object(&rig, "p").await, "Current", "Healthy");

    let awaits = json!({ "redis": { "url": null, "urlSecret": { "name": "later", "key": "url" } } });
    rig.create("secretless", awaits).await;
    rig.until::<FirehosePipeline>("secretless", "waiting", |p| reason(p, "Ready") == Some("SecretMissing")).await;
    case("waiting for a secret", object(&rig, "secretless").await, "InProgress", "Progressing");

    let hold = Patch::Merge(json!({ "metadata": { "finalizers": ["example.com/hold"] } }));
    rig.raw().patch("p", &PatchParams::default(), &hold).await.unwrap();
    rig.raw().delete("p", &DeleteParams::default()).await.unwrap();
    rig.until::<FirehosePipeline>("p", "deleting", |p| reason(p, "Ready") == Some("Deleting")).await;
    case("deleting", object(&rig, "p").await, "Terminating", "Progressing");
    let release = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    rig.raw().patch("p", &PatchParams::default(), &release).await.unwrap();

    one_order_and_one_generation(&cases);
    by_kstatus(&cases);
    by_argo(&cases);
}

/// A backfill takes days: no release waits for it, and none fails by it. Until the operator has looked at it, it is not done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_that_wait_for_a_backfill_wait_for_the_operator() {
    let Some(rig) = Rig::new("phases-backfill").await else { return };
    let (healer, _nodes) = (Healer::start().await, Nodes::start(&rig));
    rig.create("p", json!({})).await;
    let mut said = Vec::new();
    let mut case = |what: &'static str, object: &FirehoseBackfill, kstatus: &'static str| {
        said.push((what, serde_json::to_value(object).unwrap(), kstatus));
    };
    let unseen = backfills::create(&rig, "b", json!({})).await;
    case("new", &unseen, "InProgress");
    let _operator = Operator::start_with(&rig, &[("operator.healUrl", &healer.url)]).await;
    let running = backfills::until_phase(&rig, "b", BackfillPhase::Running).await;
    case("in progress", &running, "Current");
    healer.report(|report| report.state = BackfillState::Failed);
    case("failed", &backfills::until_phase(&rig, "b", BackfillPhase::Failed).await, "Current");
    healer.report(backfills::complete);
    backfills::create(&rig, "c", json!({ "scope": { "collection": "app.bsky.feed.post" } })).await;
    backfills::until_phase(&rig, "c", BackfillPhase::Running).await;
    healer.report(backfills::complete);
    case("done", &backfills::until_phase(&rig, "c", BackfillPhase::Complete).await, "Current");
    for (what, object, _) in &said {
        let stalled =
            object["status"]["conditions"].as_array().into_iter().flatten().find(|one| one["type"] == "Stalled");
        assert_eq!(stalled, None, "{what}");
    }
    let read = kstatus(said.iter().map(|(_, object, _)| object));
    let Some(read) = read else { return };
    let read: Vec<_> = said.iter().map(|(what, ..)| *what).zip(read).collect();
    let expected: Vec<_> = said.iter().map(|(what, _, kstatus)| (*what, (*kstatus).to_owned())).collect();
    assert_eq!(read, expected);
}

async fn object(rig: &Rig, name: &str) -> Value {
    serde_json::to_value(rig.raw().get(name).await.unwrap()).unwrap()
}

fn observed(pipeline: &FirehosePipeline) -> Option<i64> {
    pipeline.status.as_ref()?.observed_generation
}

/// Conditions never change places, each speaks of the generation that the status speaks of, and only what failed is called Stalled.
fn one_order_and_one_generation(cases: &[Case]) {
    const ORDER: [&str; 13] = [
        "Ready",
        "Reconciling",
        "RedisReachable",
        "DatabaseReachable",
        "Migrated",
        "IngestConnected",
        "WorkersAvailable",
        "LagKnown",
        "Progressing",
        "DataLoss",
        "Verified",
        "Healed",
        "Stalled",
    ];
    for Case { what, object, kstatus, .. } in cases {
        let status = &object["status"];
        if *what == "new" {
            assert_eq!(*status, json!({ "observedGeneration": -1, "conditions": [] }), "{what}");
            continue;
        }
        let conditions = status["conditions"].as_array().unwrap();
        let kinds: Vec<_> = conditions.iter().map(|one| one["type"].as_str().unwrap()).collect();
        let count = if *kstatus == "Failed" { ORDER.len() } else { ORDER.len() - 1 };
        assert_eq!(kinds, ORDER[..count], "{what}");
        for condition in conditions {
            assert_eq!(condition["observedGeneration"], status["observedGeneration"], "{what}: {condition}");
        }
    }
}

fn by_kstatus(cases: &[Case]) {
    let Some(said) = kstatus(cases.iter().map(|case| &case.object)) else { return };
    let said: Vec<_> = cases.iter().map(|case| case.what).zip(said).collect();
    let expected: Vec<_> = cases.iter().map(|case| (case.what, case.kstatus.to_owned())).collect();
    assert_eq!(said, expected);
}

/// Returns what kstatus says of each object; none where there is no kstatus.
fn kstatus<'a>(objects: impl Iterator<Item = &'a Value>) -> Option<Vec<String>> {
    let Ok(program) = std::env::var("PENSTOCK_KSTATUS") else {
        println!("skipped: kstatus is built and run by scripts/test-kstatus.sh");
        return None;
    };
    let input: String = objects.map(|object| format!("{object}\n")).collect();
    Some(run(Path::new(&program), &[], &input).lines().map(str::to_owned).collect())
}

fn by_argo(cases: &[Case]) {
    let lua = ["lua5.4", "lua5.3", "lua"].into_iter().find(|name| {
        Command::new(name)
            .arg("-v")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|done| done.success())
    });
    let Some(lua) = lua else {
        println!("skipped: there is no Lua to run deploy/argocd/health.lua with (Debian: lua5.4)");
        return;
    };
    for Case { what, object, argo, .. } in cases {
        let said = run(Path::new(lua), &["-e", HARNESS], &table(object));
        let (status, message) = said.split_once('\n').unwrap();
        assert_eq!(status, *argo, "{what}: {message}");
        assert!(!message.trim().is_empty(), "{what}");
    }
}

fn run(program: &Path, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(arguments)
        .env("SCRIPT", SCRIPT)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "{}", program.display());
    String::from_utf8(done.stdout).unwrap()
}

/// Writes JSON as a table of Lua.
fn table(value: &Value) -> String {
    match value {
        Value::Null => "nil".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => {
            let bytes: String = text.bytes().map(|byte| format!("\\{byte:03}")).collect();
            format!("\"{bytes}\"")
        }
        Value::Array(items) => format!("{{{}}}", items.iter().map(table).collect::<Vec<_>>().join(",")),
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| format!("[{}]={}", table(&json!(name)), table(value));
            format!("{{{}}}", fields.iter().map(field).collect::<Vec<_>>().join(","))
        }
    }
}
