//! Several operators: one leads.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::json;

use crate::operator::{Operator, Process};
use crate::rig::{Rig, eventually};

fn named<'a>(name: &'a str, further: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&[("operator.podName", name)], further].concat()
}

async fn leader(rig: &Rig) -> Option<String> {
    let lease = rig.api::<Lease>().get_opt("penstock-operator").await.unwrap()?;
    lease.spec?.holder_identity.filter(|holder| !holder.is_empty())
}

async fn until_leads(rig: &Rig, name: &str) {
    eventually(&format!("{name} leads"), async || leader(rig).await.as_deref() == Some(name)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_is_followed_by_the_other() {
    let Some(rig) = Rig::new("killed").await else { return };
    let first = Process::start(&rig, &named("first", &[]));
    until_leads(&rig, "first").await;
    let _second = Process::start(&rig, &named("second", &[]));
    rig.create("p", json!({})).await;
    rig.until::<Deployment>("p-ingest", "made", |_| true).await;
    assert_eq!(leader(&rig).await.as_deref(), Some("first"));
    first.kill();
    until_leads(&rig, "second").await;
    rig.create("q", json!({ "redis": { "keyPrefix": "q:" } })).await;
    rig.until::<Deployment>("q-ingest", "made", |_| true).await;
    let lease = rig.api::<Lease>().get("penstock-operator").await.unwrap().spec.unwrap();
    assert_eq!(lease.lease_transitions, Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_ends_in_order_gives_the_lease_back() {
    let Some(rig) = Rig::new("released").await else { return };
    // Long enough that nobody could mistake its running out for a handing over.
    let long = [("operator.leaseDuration", "10m"), ("operator.renewDeadline", "5m")];
    let first = Operator::start_with(&rig, &named("first", &long)).await;
    until_leads(&rig, "first").await;
    let second = Operator::start_with(&rig, &named("second", &long)).await;
    rig.create("p", json!({})).await;
    rig.until::<Deployment>("p-ingest", "made", |_| true).await;
    first.stop().await;
    until_leads(&rig, "second").await;
    second.stop().await;
    assert_eq!(leader(&rig).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_lease_is_taken_ends() {
    let Some(rig) = Rig::new("usurped").await else { return };
    let operator = Operator::start_with(&rig, &named("first", &[])).await;
    until_leads(&rig, "first").await;
    let taken = json!({ "spec": { "holderIdentity": "usurper", "leaseDurationSeconds": 600 } });
    let patch = kube::api::Patch::Merge(&taken);
    rig.api::<Lease>().patch("penstock-operator", &Default::default(), &patch).await.unwrap();
    eventually("it ends", async || !operator.is_running()).await;
    assert_eq!(leader(&rig).await.as_deref(), Some("usurper"));
}
