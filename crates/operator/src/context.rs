//! What every task of the operator shares: the client of the API server, the environment, and what is remembered.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::api::ApiResource;
use penstock_core::settings::Settings;
use penstock_telemetry::metrics::Metrics;
use tokio::sync::{OnceCell, watch};

use crate::crd::FirehosePipeline;
use crate::events::Events;
use crate::hash::HashKey;
use crate::outage::Servers;
use crate::plan::Apis;
use crate::recorder::{Note, Recorder};
use crate::state::{Applied, Backfills, Clients, Index, Pipelines};

/// The field manager of everything but the number of workers.
pub(crate) const MANAGER: &str = "penstock-operator";

/// The field manager of the number of workers.
pub(crate) const SCALER: &str = "penstock-autoscaler";

/// What every task shares.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) settings: Arc<Settings>,
    /// The hash of the schema that this version's workers need.
    pub(crate) schema: String,
    pub(crate) pipelines: Pipelines,
    pub(crate) backfills: Backfills,
    /// What stands in the cluster.
    pub(crate) index: Index,
    /// What was applied.
    pub(crate) applied: Applied,
    pub(crate) clients: Clients,
    /// The optional kinds that the cluster knows.
    pub(crate) apis: watch::Sender<Apis>,
    pub(crate) events: Events,
    /// The key of the hashes of Secrets, once it was read.
    pub(crate) hash_key: OnceCell<HashKey>,
    recorder: Recorder,
}

// === impl Context ===

impl Context {
    pub(crate) fn new(
        client: Client,
        settings: Arc<Settings>,
        schema: String,
        identity: String,
        metrics: &Metrics,
        servers: Servers,
    ) -> Self {
        Self {
            recorder: Recorder::new(client.clone(), MANAGER.to_owned(), identity),
            client,
            settings,
            schema,
            pipelines: Pipelines::default(),
            backfills: Backfills::default(),
            index: Index::default(),
            applied: Applied::default(),
            clients: Clients::default(),
            apis: watch::Sender::new(Apis::default()),
            hash_key: OnceCell::new(),
            events: Events::new(metrics, servers),
        }
    }

    /// Writes an Event of Kubernetes. One that cannot be written is no reason to stop.
    pub(crate) async fn record_event(&self, note: Note, about: &ObjectReference) {
        if let Err(error) = self.recorder.record(note, about).await {
            self.events.event_refused(&error);
        }
    }
}

/// Returns the resource, for what does not read its fields.
pub(crate) fn resource() -> ApiResource {
    ApiResource::erase::<FirehosePipeline>(&())
}
