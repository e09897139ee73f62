//! The resources `FirehosePipeline` and `FirehoseBackfill`, and the operator that makes them run.

pub mod children;
mod context;
pub mod crd;
mod error;
mod events;
#[cfg(test)]
mod fixture;
mod hash;
mod heal;
mod holder;
mod lease;
mod name;
mod outage;
mod pause;
pub mod plan;
mod reconcile;
mod recorder;
mod report;
mod scaling;
mod serve;
mod state;
mod status;

use std::sync::Arc;
use std::time::Duration;

use kube::{Client, Config};
use penstock_core::settings::Settings;
use penstock_telemetry::admin::Health;
use penstock_telemetry::metrics::Metrics;
use penstock_telemetry::tasks::Tasks;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use context::Context;
use lease::{Elector, Times};
use outage::Servers;

pub use error::OperatorError;

/// How long the tasks may take to end.
const ENDING: Duration = Duration::from_secs(8);

/// How long a loop may stand still before the process counts as dead, on top of its own intervals.
const STILL: Duration = Duration::from_secs(60);

/// Connects to the API server, and returns its address: by the pod's service account, or by the file that KUBECONFIG names.
///
/// # Errors
/// There is neither, or it cannot be read.
pub async fn connect() -> Result<(Client, String), OperatorError> {
    let refused = |source| OperatorError::Connect(Box::new(source));
    let config = Config::infer().await.map_err(|source| refused(kube::Error::InferConfig(source)))?;
    let api_server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
    Ok((Client::try_from(config).map_err(refused)?, api_server))
}

/// Reconciles pipelines while this process holds the lease, until `cancel` is cancelled; then releases the lease.
///
/// `api_server` is the address of the API server that `client` asks, for the log. `schema` is the hash of the schema that
/// this version's workers need.
///
/// # Errors
/// The address of the recommendations cannot be bound, the lease is lost (this process must end, and may start again), or a
/// task fails. An API server or a Redis that is away is no error, nor is a missing CustomResourceDefinition.
pub async fn run(
    settings: Arc<Settings>,
    (client, api_server): (Client, String),
    schema: String,
    metrics: Metrics,
    health: Health,
    cancel: CancellationToken,
) -> Result<(), OperatorError> {
    let operator = &settings.operator;
    let identity = operator.pod_name.clone().unwrap_or_else(identity);
    let servers = Servers::new(&api_server, operator.retry_period);
    let context = Arc::new(Context::new(
        client.clone(),
        Arc::clone(&settings),
        schema,
        identity.clone(),
        &metrics,
        servers.clone(),
    ));
    let listener = serve::bind(operator.address)?;
    let mut tasks = Tasks::default();
    let ending = CancellationToken::new();
    tasks.spawn("recommendations", serve::run(listener, Arc::clone(&context), ending.clone()));
    // A standby is as ready as the leader: both answer KEDA.
    health.check("operator").ok();
    context.events.leading(false);

    let times =
        Times { duration: operator.lease_duration, deadline: operator.renew_deadline, retry: operator.retry_period };
    let patience = operator.renew_deadline + operator.retry_period + STILL;
    let heartbeat = health.heartbeat("operator lease", patience);
    let mut elector = Elector::new(
        client,
        &operator.namespace,
        &operator.lease_name,
        identity,
        times,
        heartbeat.clone(),
        servers.kubernetes,
    );
    let ended = match elector.acquire(&cancel).await {
        Some(renewed) => {
            context.events.leading(true);
            lead(&context, &health, &mut tasks, &ending);
            let renewing = CancellationToken::new();
            let ended = tokio::select! {
                // First: asked to end, tasks do.
                biased;
                () = cancel.cancelled() => Ok(()),
                lost = elector.keep(renewed, &renewing) => lost,
                ended = tasks.first_to_end() => Err(ended.into()),
            };
            // A leader that has lost its lease ends at once: another one may be at work.
            if !matches!(ended, Err(OperatorError::LeaseLost { .. })) {
                ending.cancel();
                let _ = timeout(ENDING, tasks.all_to_end()).await;
                tasks.shutdown().await;
                elector.release().await;
            }
            ended
        }
        None => {
            // The last request may have succeeded.
            elector.release().await;
            Ok(())
        }
    };
    ending.cancel();
    context.events.leading(false);
    tasks.shutdown().await;
    heartbeat.retire();
    ended
}

/// Starts the tasks of the leader.
fn lead(context: &Arc<Context>, health: &Health, tasks: &mut Tasks, ending: &CancellationToken) {
    let settings = &context.settings.operator;
    let namespaces: Vec<Option<String>> = match settings.watch_namespaces.as_slice() {
        [] => vec![None],
        some => some.iter().cloned().map(Some).collect(),
    };
    for namespace in namespaces {
        let (context, ending) = (Arc::clone(context), ending.clone());
        let heartbeat = health.heartbeat("operator reconcile", STILL);
        tasks.spawn("reconcile", async move {
            // Which kinds there are is known before the first plan, or as soon as the API server answers.
            let _ = timeout(Duration::from_secs(5), reconcile::apis::ask(&context)).await;
            reconcile::run(context, namespace, heartbeat.clone(), ending).await;
            heartbeat.retire();
        });
    }
    let heartbeat = health.heartbeat("operator scaling", settings.scaling_interval * 2 + STILL);
    let (scaling, asking) = (Arc::clone(context), Arc::clone(context));
    let end = ending.clone();
    tasks.spawn("scaling", async move {
        tokio::select! {
            () = scaling::run(scaling, heartbeat.clone()) => {}
            () = end.cancelled() => {}
        }
        heartbeat.retire();
    });
    let heartbeat = health.heartbeat("operator backfills", settings.scaling_interval * 2 + STILL);
    let (healing, end) = (Arc::clone(context), ending.clone());
    tasks.spawn("backfills", async move {
        tokio::select! {
            () = heal::run(healing, heartbeat.clone()) => {}
            () = end.cancelled() => {}
        }
        heartbeat.retire();
    });
    let end = ending.clone();
    tasks.spawn("kinds", async move {
        tokio::select! {
            () = reconcile::apis::keep_asking(asking) => {}
            () = end.cancelled() => {}
        }
    });
}

/// Makes an identity for a process that was given no name.
fn identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "operator".to_owned());
    format!("{host}-{}", std::process::id())
}
