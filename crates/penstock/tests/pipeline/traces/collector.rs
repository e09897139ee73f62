//! An OpenTelemetry collector of the test's own, over gRPC or HTTP.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::server::{Server, TcpIncoming};
use tonic::{Request, Response, Status};

/// The header without which nothing is taken.
pub(crate) const HEADER: (&str, &str) = ("x-api-key", "geheim");

/// A collector that runs until it is dropped.
pub(crate) struct Collector {
    pub(crate) endpoint: String,
    received: Received,
    _stop: DropGuard,
}

/// What came in.
#[derive(Clone, Debug, Default)]
struct Received {
    spans: Arc<Mutex<Vec<Found>>>,
    metrics: Arc<Mutex<HashMap<String, HashMap<String, Metric>>>>,
}

/// A span, and the name of the service it is of.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) service: String,
    pub(crate) span: Span,
}

// === impl Collector ===

impl Collector {
    /// Listens for gRPC.
    pub(crate) async fn grpc() -> Self {
        Self::grpc_on(0).await
    }

    /// Listens for gRPC on this port.
    pub(crate) async fn grpc_on(port: u16) -> Self {
        let (listener, collector, stopped) = Self::new(port).await;
        let received = collector.received.clone();
        let services = Server::builder()
            .add_service(TraceServiceServer::new(received.clone()))
            .add_service(MetricsServiceServer::new(received));
        tokio::spawn(services.serve_with_incoming_shutdown(TcpIncoming::from(listener), stopped.cancelled_owned()));
        collector
    }

    /// Listens for protocol buffers over HTTP.
    pub(crate) async fn http() -> Self {
        let (listener, collector, stopped) = Self::new(0).await;
        let router = Router::new()
            .route("/v1/traces", post(http_traces))
            .route("/v1/metrics", post(http_metrics))
            .with_state(collector.received.clone());
        tokio::spawn(axum::serve(listener, router).with_graceful_shutdown(stopped.cancelled_owned()).into_future());
        collector
    }

    async fn new(port: u16) -> (TcpListener, Self, CancellationToken) {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let collector = Self { endpoint, received: Received::default(), _stop: stop.clone().drop_guard() };
        (listener, collector, stop)
    }

    /// Every span that came.
    pub(crate) fn spans(&self) -> Vec<Found> {
        self.received.spans.lock().unwrap().clone()
    }

    /// A metric of a service, as it came last.
    pub(crate) fn metric(&self, service: &str, name: &str) -> Option<Metric> {
        self.received.metrics.lock().unwrap().get(service)?.get(name).cloned()
    }
}

// === impl Received ===

impl Received {
    fn traces(&self, request: ExportTraceServiceRequest) {
        let mut spans = self.spans.lock().unwrap();
        for of_resource in request.resource_spans {
            let service = service(of_resource.resource.as_ref());
            let of_scopes = of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans);
            spans.extend(of_scopes.map(|span| Found { service: service.clone(), span }));
        }
    }

    fn metrics(&self, request: ExportMetricsServiceRequest) {
        let mut metrics = self.metrics.lock().unwrap();
        for of_resource in request.resource_metrics {
            let of_service = metrics.entry(service(of_resource.resource.as_ref())).or_default();
            let of_scopes = of_resource.scope_metrics.into_iter().flat_map(|of_scope| of_scope.metrics);
            of_service.extend(of_scopes.map(|metric| (metric.name.clone(), metric)));
        }
    }
}

#[tonic::async_trait]
impl TraceService for Received {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let_in(&request.metadata().clone().into_headers())?;
        self.traces(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Received {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let_in(&request.metadata().clone().into_headers())?;
        self.metrics(request.into_inner());
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

async fn http_traces(State(received): State<Received>, headers: HeaderMap, body: Bytes) {
    let_in(&headers).unwrap();
    received.traces(ExportTraceServiceRequest::decode(body).unwrap());
}

async fn http_metrics(State(received): State<Received>, headers: HeaderMap, body: Bytes) {
    let_in(&headers).unwrap();
    received.metrics(ExportMetricsServiceRequest::decode(body).unwrap());
}

fn let_in(headers: &HeaderMap) -> Result<(), Status> {
    let key = headers.get(HEADER.0).ok_or_else(|| Status::unauthenticated("no key"))?;
    if key == HEADER.1 { Ok(()) } else { Err(Status::unauthenticated("another key")) }
}

fn service(resource: Option<&Resource>) -> String {
    text(resource.map(|resource| &resource.attributes[..]).unwrap_or_default(), "service.name").unwrap_or_default()
}

// === impl Found ===

impl Found {
    /// An attribute that is a text.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        text(&self.span.attributes, name)
    }

    /// An attribute that is a whole number.
    pub(crate) fn number(&self, name: &str) -> Option<i64> {
        match value(&self.span.attributes, name)? {
            Value::IntValue(number) => Some(*number),
            _ => None,
        }
    }

    /// Whether it is linked to a span.
    pub(crate) fn links_to(&self, other: &Self) -> bool {
        let is_other =
            |(trace, span): (&Vec<u8>, &Vec<u8>)| (trace, span) == (&other.span.trace_id, &other.span.span_id);
        self.span.links.iter().any(|link| is_other((&link.trace_id, &link.span_id)))
    }

    /// Whether it is a direct part of a span.
    pub(crate) fn is_child_of(&self, other: &Self) -> bool {
        (&self.span.trace_id, &self.span.parent_span_id) == (&other.span.trace_id, &other.span.span_id)
    }
}

fn text(attributes: &[KeyValue], name: &str) -> Option<String> {
    match value(attributes, name)? {
        Value::StringValue(text) => Some(text.clone()),
        _ => None,
    }
}

fn value<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a Value> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    found.value.as_ref().and_then(|AnyValue { value }| value.as_ref())
}
