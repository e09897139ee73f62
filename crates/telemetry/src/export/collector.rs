//! How the collector is reached: gRPC or HTTP, with TLS where the address says so.

use std::collections::HashMap;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use opentelemetry_http::{Bytes, HttpClient, hyper::HyperClient};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use prost::Message;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use super::Target;
use super::outage::NotSent;
use crate::TelemetryError;

/// How a collector is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC over HTTP/2.
    Grpc,
    /// Protocol buffers by POST over HTTP/1.1.
    HttpProtobuf,
}

/// Sends metrics.
pub(super) enum MetricsClient {
    Grpc { client: MetricsServiceClient<Channel>, metadata: MetadataMap },
    Http { client: Box<dyn HttpClient>, url: String, headers: HeaderMap },
}

/// Makes what sends spans.
pub(super) fn span_exporter(target: &Target, patience: Duration) -> Result<SpanExporter, TelemetryError> {
    let builder = SpanExporter::builder();
    let built = match target.protocol {
        Protocol::Grpc => builder
            .with_tonic()
            .with_channel(channel(target, patience)?)
            .with_metadata(MetadataMap::from_headers(headers(target)?))
            .with_timeout(patience)
            .build(),
        Protocol::HttpProtobuf => builder
            .with_http()
            .with_http_client(client(target, patience)?)
            .with_endpoint(&target.url)
            .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
            .with_headers(checked_headers(target)?)
            .with_timeout(patience)
            .build(),
    };
    built.map_err(|source| unusable(target, source))
}

fn channel(target: &Target, patience: Duration) -> Result<Channel, TelemetryError> {
    let endpoint = Endpoint::from_shared(target.url.clone()).map_err(|source| unusable(target, source))?;
    let endpoint = endpoint.timeout(patience).connect_timeout(patience);
    let endpoint = if target.url.starts_with("https:") {
        let tls = ClientTlsConfig::new().with_native_roots();
        endpoint.tls_config(tls).map_err(|source| unusable(target, source))?
    } else {
        endpoint
    };
    Ok(endpoint.connect_lazy())
}

fn client(target: &Target, patience: Duration) -> Result<impl HttpClient + 'static, TelemetryError> {
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_provider_and_native_roots(rustls::crypto::ring::default_provider())
        .map_err(|source| unusable(target, source))?
        .https_or_http()
        .enable_http1()
        .build();
    Ok(HyperClient::new(connector, patience, None))
}

fn headers(target: &Target) -> Result<HeaderMap, TelemetryError> {
    let mut headers = HeaderMap::new();
    for (name, value) in &target.headers {
        let refused = || TelemetryError::ExportHeader { name: name.clone() };
        let header: HeaderName = name.parse().map_err(|_| refused())?;
        let mut value: HeaderValue = value.parse().map_err(|_| refused())?;
        value.set_sensitive(true);
        headers.append(header, value);
    }
    Ok(headers)
}

fn checked_headers(target: &Target) -> Result<HashMap<String, String>, TelemetryError> {
    headers(target)?;
    Ok(target.headers.iter().cloned().collect())
}

fn unusable(target: &Target, source: impl std::error::Error + Send + Sync + 'static) -> TelemetryError {
    TelemetryError::ExportEndpoint { endpoint: target.collector.clone(), source: Box::new(source) }
}

// === impl MetricsClient ===

impl MetricsClient {
    pub(super) fn new(target: &Target, patience: Duration) -> Result<Self, TelemetryError> {
        let headers = headers(target)?;
        Ok(match target.protocol {
            Protocol::Grpc => Self::Grpc {
                client: MetricsServiceClient::new(channel(target, patience)?),
                metadata: MetadataMap::from_headers(headers),
            },
            Protocol::HttpProtobuf => {
                Self::Http { client: Box::new(client(target, patience)?), url: target.url.clone(), headers }
            }
        })
    }

    /// Sends once.
    pub(super) async fn send(&self, metrics: ExportMetricsServiceRequest) -> Result<(), NotSent> {
        match self {
            Self::Grpc { client, metadata } => {
                let mut request = tonic::Request::new(metrics);
                *request.metadata_mut() = metadata.clone();
                client.clone().export(request).await.map(drop).map_err(|status| NotSent::by_grpc(&status))
            }
            Self::Http { client, url, headers } => {
                let request = Request::post(url).header(header::CONTENT_TYPE, "application/x-protobuf");
                let request = request.body(Bytes::from(metrics.encode_to_vec()));
                let mut request = request.map_err(|error| NotSent::unanswered(&error))?;
                request.headers_mut().extend(headers.clone());
                let answer = client.send_bytes(request).await.map_err(|error| NotSent::unanswered(&*error))?;
                if answer.status().is_success() {
                    Ok(())
                } else {
                    Err(NotSent::Refused(format!("it answered {}", answer.status())))
                }
            }
        }
    }
}
