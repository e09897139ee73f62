//! How the collector is reached: gRPC or HTTP, with TLS where the address says so.

use std::collections::HashMap;
use std::fmt::Display;

use http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use opentelemetry_http::{Bytes, HttpClient, hyper::HyperClient};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use prost::Message;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use super::ExportSettings;
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
pub(super) fn span_exporter(settings: &ExportSettings) -> Result<SpanExporter, TelemetryError> {
    let builder = SpanExporter::builder();
    let built = match settings.protocol {
        Protocol::Grpc => builder
            .with_tonic()
            .with_channel(channel(settings)?)
            .with_metadata(MetadataMap::from_headers(headers(settings)?))
            .with_timeout(settings.timeout)
            .build(),
        Protocol::HttpProtobuf => builder
            .with_http()
            .with_http_client(client(settings)?)
            .with_endpoint(format!("{}/v1/traces", settings.endpoint))
            .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
            .with_headers(checked_headers(settings)?)
            .with_timeout(settings.timeout)
            .build(),
    };
    built.map_err(|source| unusable(settings, source))
}

fn channel(settings: &ExportSettings) -> Result<Channel, TelemetryError> {
    let endpoint = Endpoint::from_shared(settings.endpoint.clone()).map_err(|source| unusable(settings, source))?;
    let endpoint = endpoint.timeout(settings.timeout).connect_timeout(settings.timeout);
    let endpoint = if settings.endpoint.starts_with("https:") {
        let tls = ClientTlsConfig::new().with_native_roots();
        endpoint.tls_config(tls).map_err(|source| unusable(settings, source))?
    } else {
        endpoint
    };
    Ok(endpoint.connect_lazy())
}

fn client(settings: &ExportSettings) -> Result<impl HttpClient + 'static, TelemetryError> {
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_provider_and_native_roots(rustls::crypto::ring::default_provider())
        .map_err(|source| unusable(settings, source))?
        .https_or_http()
        .enable_http1()
        .build();
    Ok(HyperClient::new(connector, settings.timeout, None))
}

fn headers(settings: &ExportSettings) -> Result<HeaderMap, TelemetryError> {
    let mut headers = HeaderMap::new();
    for (name, value) in &settings.headers {
        let refused = || TelemetryError::ExportHeader { name: name.clone() };
        let header: HeaderName = name.parse().map_err(|_| refused())?;
        let mut value: HeaderValue = value.parse().map_err(|_| refused())?;
        value.set_sensitive(true);
        headers.append(header, value);
    }
    Ok(headers)
}

fn checked_headers(settings: &ExportSettings) -> Result<HashMap<String, String>, TelemetryError> {
    headers(settings)?;
    Ok(settings.headers.iter().cloned().collect())
}

fn unusable(settings: &ExportSettings, source: impl std::error::Error + Send + Sync + 'static) -> TelemetryError {
    TelemetryError::ExportEndpoint { endpoint: settings.endpoint.clone(), source: Box::new(source) }
}

// === impl MetricsClient ===

impl MetricsClient {
    pub(super) fn new(settings: &ExportSettings) -> Result<Self, TelemetryError> {
        let headers = headers(settings)?;
        Ok(match settings.protocol {
            Protocol::Grpc => Self::Grpc {
                client: MetricsServiceClient::new(channel(settings)?),
                metadata: MetadataMap::from_headers(headers),
            },
            Protocol::HttpProtobuf => Self::Http {
                client: Box::new(client(settings)?),
                url: format!("{}/v1/metrics", settings.endpoint),
                headers,
            },
        })
    }

    /// Sends once; says what went wrong.
    pub(super) async fn send(&self, metrics: ExportMetricsServiceRequest) -> Result<(), String> {
        let said = |error: &dyn Display| error.to_string();
        match self {
            Self::Grpc { client, metadata } => {
                let mut request = tonic::Request::new(metrics);
                *request.metadata_mut() = metadata.clone();
                client.clone().export(request).await.map(drop).map_err(|status| said(&status))
            }
            Self::Http { client, url, headers } => {
                let request = Request::post(url).header(header::CONTENT_TYPE, "application/x-protobuf");
                let mut request = request.body(Bytes::from(metrics.encode_to_vec())).map_err(|error| said(&error))?;
                request.headers_mut().extend(headers.clone());
                let answer = client.send_bytes(request).await.map_err(|error| said(&error))?;
                if answer.status().is_success() { Ok(()) } else { Err(format!("it answered {}", answer.status())) }
            }
        }
    }
}
