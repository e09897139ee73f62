//! What every task of the operator shares.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::api::ApiResource;
use kube::runtime::events::{Event, Recorder, Reporter};
use penstock_core::settings::Settings;
use penstock_telemetry::metrics::Metrics;
use tokio::sync::watch;

use crate::crd::FirehosePipeline;
use crate::events::Telemetry;
use crate::pipelines::Pipelines;
use crate::plan::Apis;
use crate::reconcile::{Applied, Index};
use crate::scaling::Clients;

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
    /// What stands in the cluster.
    pub(crate) index: Index,
    /// What was applied.
    pub(crate) applied: Applied,
    pub(crate) clients: Clients,
    /// The optional kinds that the cluster knows.
    pub(crate) apis: watch::Sender<Apis>,
    pub(crate) telemetry: Telemetry,
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
    ) -> Self {
        let reporter = Reporter { controller: "penstock-operator".to_owned(), instance: Some(identity) };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            settings,
            schema,
            pipelines: Pipelines::default(),
            index: Index::default(),
            applied: Applied::default(),
            clients: Clients::default(),
            apis: watch::Sender::new(Apis::default()),
            telemetry: Telemetry::new(metrics),
        }
    }

    /// Tells an Event. One that cannot be written is no reason to stop.
    pub(crate) async fn tell(&self, event: Event, about: &ObjectReference) {
        if let Err(error) = self.recorder.publish(&event, about).await {
            self.telemetry.event_refused(&error);
        }
    }
}

/// Returns the resource, for what does not read its fields.
pub(crate) fn resource() -> ApiResource {
    ApiResource::erase::<FirehosePipeline>(&())
}
