//! Whose dashboard this is: the pipeline it shows, its version, and which of its parts are in use.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

use super::api::{Access, Api};
use super::problem::Problem;
use crate::App;

/// Where the documents are.
const DOCUMENTATION: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/tree/main/docs");

/// Whose dashboard this is.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct About<'s> {
    /// The pipeline's name: `pipeline.name`, in a cluster that of the FirehosePipeline.
    pipeline: &'s str,
    /// Its namespace; null outside a cluster.
    namespace: Option<&'s str>,
    /// The version of the dashboard.
    version: &'static str,
    /// Where the documentation is.
    documentation: &'static str,
    /// Whether the message buffer is enabled.
    message_buffer: bool,
}

/// Registers the route.
pub(super) fn register(api: &mut Api) {
    api.get("/api/about", Access::Read, about)
        .says("Names the pipeline, the version and the parts in use.")
        .answers::<About<'_>>("whose dashboard this is");
}

async fn about(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    super::answer(&About::of(&app.settings.pipeline.name, app.messages.is_some()))
}

// === impl About ===

impl<'s> About<'s> {
    /// Takes a name as the operator writes it: `namespace/name`.
    fn of(name: &'s str, message_buffer: bool) -> Self {
        let (namespace, pipeline) = match name.split_once('/') {
            Some((namespace, pipeline)) => (Some(namespace), pipeline),
            None => (None, name),
        };
        let version = env!("CARGO_PKG_VERSION");
        Self { pipeline, namespace, version, documentation: DOCUMENTATION, message_buffer }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipeline_of_a_cluster_has_its_namespace() {
        let named = |name| {
            let About { namespace, pipeline, .. } = About::of(name, false);
            (namespace, pipeline)
        };
        assert_eq!(named("social/bluesky"), (Some("social"), "bluesky"));
        assert_eq!(named("default"), (None, "default"));
    }
}
