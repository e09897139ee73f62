//! The recommendation over HTTP, for KEDA's metrics-api trigger.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Json;
use axum::routing::get;
use kube::Api;
use penstock_core::causes::chain;
use penstock_core::listen::listen;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::crd::FirehosePipeline;
use crate::error::OperatorError;
use crate::name::Name;

/// How long the API server may take where this process does not lead.
const PATIENCE: Duration = Duration::from_secs(3);

/// Binds the address.
///
/// # Errors
/// It is taken, or not of this host.
pub(crate) fn bind(address: SocketAddr) -> Result<TcpListener, OperatorError> {
    listen(address).map_err(|source| OperatorError::Bind { address, source })
}

/// Serves until cancelled.
pub(crate) async fn run(listener: TcpListener, context: Arc<Context>, cancel: CancellationToken) {
    let router = Router::new().route("/recommendation/{namespace}/{name}", get(recommendation)).with_state(context);
    let served = axum::serve(listener, router).with_graceful_shutdown(cancel.clone().cancelled_owned());
    let cut = async {
        cancel.cancelled().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    tokio::select! {
        served = served.into_future() => if let Err(error) = served {
            tracing::error!(error = chain(&error), "could not serve recommendations");
        },
        () = cut => {}
    }
}

/// Answers with the desired number of workers: the leader from its decision, a standby from the status that the leader wrote. An
/// error lets KEDA keep what it has, which is right while the number is unknown.
async fn recommendation(
    State(context): State<Arc<Context>>,
    Path((namespace, name)): Path<(String, String)>,
) -> (StatusCode, Json<Value>) {
    let refused = |status: StatusCode, why: &str| (status, Json(json!({ "error": why })));
    // Names become a part of the path at which the API server is asked.
    if ![&namespace, &name].into_iter().all(|text| is_name(text)) {
        return refused(StatusCode::NOT_FOUND, "no such pipeline");
    }
    let name = Name { namespace, name };
    let decided = context.pipelines.get(&name).and_then(|pipeline| {
        let state = pipeline.state();
        state.decision.as_ref().map(|decision| if state.facts.suspend { 0 } else { i32::from(decision.replicas) })
    });
    if let Some(replicas) = decided {
        return (StatusCode::OK, Json(json!({ "replicas": replicas })));
    }
    let api: Api<FirehosePipeline> = Api::namespaced(context.client.clone(), &name.namespace);
    match timeout(PATIENCE, api.get_opt(&name.name)).await {
        Ok(Ok(Some(pipeline))) => {
            let workers = pipeline.status.and_then(|status| status.workers).filter(|workers| workers.reason.is_some());
            match workers {
                Some(workers) => (StatusCode::OK, Json(json!({ "replicas": workers.desired }))),
                None => refused(StatusCode::SERVICE_UNAVAILABLE, "no decision yet"),
            }
        }
        Ok(Ok(None)) => refused(StatusCode::NOT_FOUND, "no such pipeline"),
        Ok(Err(_)) | Err(_) => refused(StatusCode::SERVICE_UNAVAILABLE, "the api server does not answer"),
    }
}

fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_name_is_never_asked_for() {
        assert!(is_name("bluesky-2"));
        for text in ["", "..", "a/b", "A", "a.b", "a%2fb", &"a".repeat(64)] {
            assert!(!is_name(text), "{text}");
        }
    }
}
