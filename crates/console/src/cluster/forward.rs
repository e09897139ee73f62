//! Connections to a dashboard's pod through the API server.

use std::fmt;
use std::io;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use penstock_core::causes::chain;

use crate::client::{Connection, Dial, Dialing};

/// The name of the dashboard's port, and its number where a pod names none.
const PORT: (&str, u16) = ("http", 8000);

/// Forwards connections to a pod that is ready; each finds its own, because pods come and go.
pub(super) struct Forward {
    pods: Api<Pod>,
    selector: String,
}

// === impl Forward ===

impl Forward {
    pub(super) fn new(pods: Api<Pod>, selector: String) -> Self {
        Self { pods, selector }
    }

    async fn connect(&self) -> io::Result<Box<dyn Connection>> {
        let list = self.pods.list(&ListParams::default().labels(&self.selector)).await;
        let pods = list.map_err(|error| io::Error::other(chain(&error)))?.items;
        let Some(pod) = pods.iter().find(|pod| is_ready(pod)) else {
            let why = if pods.is_empty() { "the dashboard has no pod" } else { "no pod of the dashboard is ready" };
            return Err(io::Error::new(io::ErrorKind::NotConnected, why));
        };
        let (name, port) = (pod.metadata.name.as_deref().unwrap_or_default(), port(pod));
        let forwarded = self.pods.portforward(name, &[port]).await;
        let mut forwarded = forwarded.map_err(|error| io::Error::other(chain(&error)))?;
        let stream = forwarded.take_stream(port);
        // What it forwards ends with the stream.
        tokio::spawn(forwarded.join());
        let stream = stream.ok_or_else(|| io::Error::other("the port is not forwarded"))?;
        Ok(Box::new(stream))
    }
}

impl Dial for Forward {
    fn dial(&self) -> Dialing<'_> {
        Box::pin(self.connect())
    }
}

impl fmt::Debug for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forward").field("selector", &self.selector).finish_non_exhaustive()
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    pod.metadata.deletion_timestamp.is_none()
        && conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn port(pod: &Pod) -> u16 {
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let mut ports = containers.iter().flat_map(|container| container.ports.iter().flatten());
    let named = ports.find(|port| port.name.as_deref() == Some(PORT.0));
    named.and_then(|port| u16::try_from(port.container_port).ok()).unwrap_or(PORT.1)
}
