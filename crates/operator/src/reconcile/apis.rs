//! Which of the optional kinds, those that somebody must install, the cluster knows.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::api::ApiResource;
use tokio::time::{sleep, timeout};

use crate::children;
use crate::context::Context;
use crate::plan::Apis;

/// How often the cluster is asked again.
const EVERY: Duration = Duration::from_secs(60);

/// How soon it is asked again when it did not answer.
const SOON: Duration = Duration::from_secs(5);

/// The groups of the kinds that Kubernetes itself has not got, each with its version.
fn optional() -> Vec<ApiResource> {
    children::kinds().into_iter().filter(is_optional).collect()
}

/// Says whether a cluster knows a kind only once somebody has installed it.
pub(super) fn is_optional(resource: &ApiResource) -> bool {
    matches!(resource.kind.as_str(), "ServiceMonitor" | "PrometheusRule" | "ScaledObject" | "HTTPRoute")
}

/// Says whether the cluster knows a kind.
pub(super) fn has(apis: Apis, resource: &ApiResource) -> bool {
    match resource.kind.as_str() {
        "ServiceMonitor" => apis.service_monitor,
        "PrometheusRule" => apis.prometheus_rule,
        "ScaledObject" => apis.scaled_object,
        "HTTPRoute" => apis.http_route,
        _ => true,
    }
}

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Asks the cluster once.
pub(crate) async fn ask(context: &Context) -> bool {
    match timeout(PATIENCE, discover(&context.client)).await {
        Ok(Ok(apis)) => {
            context.apis.send_if_modified(|known| std::mem::replace(known, apis) != apis);
            true
        }
        Ok(Err(error)) => {
            context.events.watch_failed("kinds of the cluster", &error);
            false
        }
        Err(slow) => {
            context.events.watch_failed("kinds of the cluster", &slow);
            false
        }
    }
}

/// Asks the cluster again and again.
pub(crate) async fn keep_asking(context: Arc<Context>) {
    // The first question may have failed.
    let mut pause = SOON;
    loop {
        sleep(pause).await;
        pause = if ask(&context).await { EVERY } else { SOON };
    }
}

async fn discover(client: &Client) -> Result<Apis, kube::Error> {
    let groups = client.list_api_groups().await?;
    let served: BTreeSet<String> =
        groups.groups.into_iter().flat_map(|group| group.versions).map(|version| version.group_version).collect();
    let mut kinds = BTreeSet::new();
    let versions: BTreeSet<String> = optional().into_iter().map(|kind| kind.api_version).collect();
    for version in versions.intersection(&served) {
        let resources = client.list_api_group_resources(version).await?;
        kinds.extend(resources.resources.into_iter().map(|resource| resource.kind));
    }
    let has = |kind: &str| kinds.contains(kind);
    Ok(Apis {
        service_monitor: has("ServiceMonitor"),
        prometheus_rule: has("PrometheusRule"),
        scaled_object: has("ScaledObject"),
        http_route: has("HTTPRoute"),
    })
}
