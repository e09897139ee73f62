//! The same of backfills.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::core::ApiResource;
use kube::{Api, Client};
use penstock_operator::crd::{FirehoseBackfill, Order};
use serde_json::{Value, json};

use crate::rig::{Rig, words};

const SCOPE: &str =
    "set exactly one of scope.repos (DIDs), scope.collection (the NSID of a collection) and scope.all (true)";
const KEPT_SCOPE: &str = "scope is immutable, because what was done counts for it: create another FirehoseBackfill";
const KEPT_PIPELINE: &str = "pipeline is immutable: create another FirehoseBackfill";
const KEPT_RELAY: &str =
    "relay is immutable, because each relay lists repos in an order of its own: create another FirehoseBackfill";
const LONG_NAME: &str = "metadata.name must have at most 63 characters";

/// What tests of their own show.
pub(super) const ELSEWHERE: [&str; 4] = [KEPT_SCOPE, KEPT_PIPELINE, KEPT_RELAY, LONG_NAME];

/// Specs that are refused, each with the words that say what to write.
pub(super) fn refused() -> Vec<(Value, &'static str)> {
    let did = "each of scope.repos must be a DID, such as did:plc:z72i7hdynmk6r22z27h6tvur";
    let collection = "scope.collection must be the NSID of a collection, such as app.bsky.feed.post";
    let relay = "relay must be wss://host or ws://host:port, such as wss://bsky.network";
    let of = |scope: Value| json!({ "pipeline": "p", "scope": scope });
    let with = |field: &str, value: Value| {
        let mut spec = of(json!({ "all": true }));
        spec[field] = value;
        spec
    };
    vec![
        (of(json!({})), SCOPE),
        (of(json!({ "all": true, "collection": "app.bsky.feed.post" })), SCOPE),
        (of(json!({ "repos": ["did:plc:a"], "all": true })), SCOPE),
        (of(json!({ "all": false })), "scope.all must be true, or not be set"),
        (of(json!({ "repos": ["alice.example.com"] })), did),
        (of(json!({ "repos": ["did:plc:a", "did:key:z"] })), did),
        (of(json!({ "repos": [] })), "spec.scope.repos: Invalid value"),
        (of(json!({ "repos": vec!["did:plc:a"; 1001] })), "spec.scope.repos: Too many"),
        (of(json!({ "collection": "posts" })), collection),
        (of(json!({ "collection": "app.bsky.*" })), collection),
        (json!({ "pipeline": "p" }), "spec.scope: Required value"),
        (json!({ "scope": { "all": true } }), "spec.pipeline: Required value"),
        (json!({ "pipeline": "", "scope": { "all": true } }), "spec.pipeline: Invalid value"),
        (with("relay", json!("https://bsky.network")), relay),
        (with("relay", json!("wss://user:secret@bsky.network")), relay),
        (with("rate", json!(0)), "spec.rate: Invalid value"),
        (with("parallelism", json!(10_001)), "spec.parallelism: Invalid value"),
        (with("order", json!("Newest")), "supported values: \"Last\", \"First\""),
        (with("ttlAfterFinished", json!("a week")), "spec.ttlAfterFinished: Invalid value"),
    ]
}

fn taken() -> Vec<Value> {
    vec![
        json!({ "pipeline": "p", "scope": { "all": true } }),
        json!({ "pipeline": "p", "scope": { "repos": ["did:plc:z72i7hdynmk6r22z27h6tvur", "did:web:host.example%3A3000"] } }),
        json!({ "pipeline": "p", "scope": { "collection": "app.bsky.feed.post" }, "relay": "ws://relay.firehose.svc:2470" }),
        json!({
            "pipeline": "p", "scope": { "all": true }, "relay": "wss://bsky.network", "rate": 1, "parallelism": 10_000,
            "order": "First", "suspend": true, "ttlAfterFinished": "7d",
        }),
    ]
}

fn api(rig: &Rig) -> Api<DynamicObject> {
    let client: Client = rig.client.clone();
    Api::namespaced_with(client, &rig.namespace, &ApiResource::erase::<FirehoseBackfill>(&()))
}

fn backfill(name: &str, spec: &Value) -> DynamicObject {
    serde_json::from_value(json!({
        "apiVersion": "penstock.dev/v1alpha1", "kind": "FirehoseBackfill", "metadata": { "name": name }, "spec": spec,
    }))
    .unwrap()
}

#[tokio::test]
async fn a_backfill_that_is_not_valid_is_refused_with_words_that_say_what_to_write() {
    let Some(rig) = Rig::new("backfill-refused").await else { return };
    for (spec, message) in refused() {
        match api(&rig).create(&PostParams::default(), &backfill("refused", &spec)).await {
            Ok(_) => panic!("taken: {spec}"),
            Err(error) => assert!(words(&error).contains(message), "{spec}: {}", words(&error)),
        }
    }
    let spec = &taken()[0];
    let said = api(&rig).create(&PostParams::default(), &backfill(&"a".repeat(64), spec)).await.unwrap_err();
    assert!(words(&said).contains(LONG_NAME), "{}", words(&said));
}

#[tokio::test]
async fn a_backfill_that_is_valid_is_taken_with_its_defaults() {
    let Some(rig) = Rig::new("backfill-taken").await else { return };
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    for spec in taken() {
        let made = api(&rig).create(&dry, &backfill(&"a".repeat(63), &spec)).await;
        let made = made.unwrap_or_else(|error| panic!("{spec}: {}", words(&error)));
        let parsed: FirehoseBackfill = made.clone().try_parse().unwrap();
        assert_eq!(made.data["spec"], serde_json::to_value(&parsed.spec).unwrap());
        // Who waits for it does not take it for done before an operator has looked at it.
        assert_eq!(parsed.status.unwrap().observed_generation, Some(-1));
    }
    let made = api(&rig).create(&dry, &backfill("least", &taken()[0])).await.unwrap();
    let spec = made.try_parse::<FirehoseBackfill>().unwrap().spec;
    assert!(!spec.suspend && spec.order == Order::Last && spec.rate.is_none() && spec.ttl_after_finished.is_none());
}

#[tokio::test]
async fn what_a_backfill_covers_stays_while_its_pace_may_change() {
    let Some(rig) = Rig::new("backfill-kept").await else { return };
    api(&rig).create(&PostParams::default(), &backfill("kept", &taken()[2])).await.unwrap();
    let change = async |spec: Value| {
        let patch = Patch::Merge(json!({ "spec": spec }));
        api(&rig).patch("kept", &PatchParams::default(), &patch).await.map_err(|error| words(&error))
    };
    for (spec, message) in [
        (json!({ "pipeline": "q" }), KEPT_PIPELINE),
        (json!({ "scope": { "collection": "app.bsky.feed.like" } }), KEPT_SCOPE),
        (json!({ "scope": { "collection": null, "all": true } }), KEPT_SCOPE),
        (json!({ "relay": "wss://bsky.network" }), KEPT_RELAY),
        (json!({ "relay": null }), KEPT_RELAY),
    ] {
        let said = change(spec.clone()).await.unwrap_err();
        assert!(said.contains(message), "{spec}: {said}");
    }
    change(json!({ "rate": 5, "parallelism": 3, "order": "First", "suspend": true, "ttlAfterFinished": "1h" }))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_backfill_is_found_by_its_short_name_and_in_its_categories() {
    let Some(rig) = Rig::new("backfill-discovery").await else { return };
    let found: APIResourceList = rig.client.list_api_group_resources("penstock.dev/v1alpha1").await.unwrap();
    let resource = found.resources.iter().find(|resource| resource.name == "firehosebackfills").unwrap();
    assert!(resource.namespaced);
    assert_eq!(resource.short_names.as_deref(), Some(&["fhb".to_owned()][..]));
    assert_eq!(resource.categories.as_deref(), Some(&["all".to_owned(), "penstock".to_owned()][..]));
}
