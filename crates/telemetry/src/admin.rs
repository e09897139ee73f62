//! The admin server: liveness, readiness, metrics and log level of one process, and the client that asks for them.

mod health;
mod probe;

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json};
use axum::routing::get;
use penstock_core::causes::chain;
use penstock_core::listen::listen;
use tokio::net::{TcpListener, ToSocketAddrs, lookup_host};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::metrics::{Format, Metrics};
use crate::{TelemetryError, log_level, set_log_level};

pub use health::{CheckHandle, Health, Heartbeat};
pub use probe::{ask_log_level, healthcheck};

/// The most of a new log level that is read, in bytes.
const LONGEST_LEVEL: usize = 1024;

/// How long answers under way may take once the server is asked to end.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Serves `/healthz`, `/readyz`, `/metrics` and `/log-level` until `shutdown` is cancelled, and returns the bound address.
///
/// `GET /log-level` tells the level, `PUT` with another one as the body changes it, from the same host (the same pod) only.
///
/// Give it a token that is cancelled after the service has drained, so that probes are answered meanwhile.
///
/// # Errors
///
/// [`TelemetryError::BindAdmin`] when the address is not one or is taken.
pub async fn serve(
    address: impl ToSocketAddrs + Display,
    health: Health,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> Result<(SocketAddr, JoinHandle<()>), TelemetryError> {
    serve_with(address, health, metrics, Router::new(), shutdown).await
}

/// Serves as [`serve`] does, with further routes of the service, which admit by themselves whoever they admit.
///
/// # Errors
///
/// As [`serve`].
pub async fn serve_with(
    address: impl ToSocketAddrs + Display,
    health: Health,
    metrics: Metrics,
    routes: Router,
    shutdown: CancellationToken,
) -> Result<(SocketAddr, JoinHandle<()>), TelemetryError> {
    let bind_error = |source| TelemetryError::BindAdmin { address: address.to_string(), source };
    let listener = listen_on_first(&address).await.map_err(bind_error)?;
    let bound = listener.local_addr().map_err(bind_error)?;
    info!(address = %bound, "admin server listening");

    let service = router(health, metrics).merge(routes).into_make_service_with_connect_info::<SocketAddr>();
    let server =
        axum::serve(listener, service).with_graceful_shutdown(shutdown.clone().cancelled_owned()).into_future();
    let task = tokio::spawn(async move {
        let cut = async {
            shutdown.cancelled().await;
            tokio::time::sleep(LAST_ANSWERS).await;
        };
        tokio::select! {
            served = server => if let Err(error) = served {
                error!(error = chain(&error), "admin server failed");
            },
            () = cut => {}
        }
    });
    Ok((bound, task))
}

/// Listens on the first of a name's addresses that is one of this host and free.
async fn listen_on_first(address: impl ToSocketAddrs) -> io::Result<TcpListener> {
    let mut refused = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for candidate in lookup_host(address).await? {
        match listen(candidate) {
            Ok(listener) => return Ok(listener),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

fn router(health: Health, metrics: Metrics) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(health)
        .route("/metrics", get(scrape).with_state(metrics))
        .route("/log-level", get(async || log_level()).put(change_log_level))
        .layer(DefaultBodyLimit::max(LONGEST_LEVEL))
}

async fn healthz(State(health): State<Health>) -> impl IntoResponse {
    let (alive, body) = health.liveness();
    (status(alive), Json(body))
}

async fn readyz(State(health): State<Health>) -> impl IntoResponse {
    let (ready, body) = health.readiness();
    (status(ready), Json(body))
}

async fn scrape(State(metrics): State<Metrics>, headers: HeaderMap) -> impl IntoResponse {
    let accept: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = Format::accepted(&accept.join(","));
    ([(header::CONTENT_TYPE, format.content_type()), (header::VARY, "accept")], metrics.encode_as(format))
}

/// Changes the level for whoever is on this host: the address is open for probes and scrapes, and that is no login.
async fn change_log_level(ConnectInfo(from): ConnectInfo<SocketAddr>, level: String) -> impl IntoResponse {
    if !from.ip().to_canonical().is_loopback() {
        return (StatusCode::FORBIDDEN, "the log level can only be changed from the same host or pod\n".to_owned());
    }
    match set_log_level(&level) {
        Ok(()) => {
            info!(filter = level.trim(), "log level changed");
            (StatusCode::OK, log_level())
        }
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

fn status(fit: bool) -> StatusCode {
    if fit { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::metrics::Metric;

    async fn start(health: &Health, metrics: &Metrics) -> (SocketAddr, JoinHandle<()>, CancellationToken) {
        let shutdown = CancellationToken::new();
        let (address, task) = serve("127.0.0.1:0", health.clone(), metrics.clone(), shutdown.clone()).await.unwrap();
        (address, task, shutdown)
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        get_as(address, path, "").await
    }

    /// Asks with further headers, each with its line's end.
    async fn get_as(address: SocketAddr, path: &str, headers: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn put_level(address: SocketAddr, level: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let length = level.len();
        let head =
            format!("PUT /log-level HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(format!("{head}{level}").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn metrics_are_served_as_the_client_accepts_them() {
        let metrics = Metrics::new();
        metrics.counter(Metric::Gaps, None).inc();
        let (address, _task, _shutdown) = start(&Health::new(), &metrics).await;
        let accept =
            "Accept: application/openmetrics-text;version=1.0.0;q=0.5\r\nAccept: text/plain;version=0.0.4;q=0.3\r\n";
        let answer = get_as(address, "/metrics", accept).await;
        assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0"), "{answer}");
        assert!(answer.contains("\npenstock_ingest_gaps_total 1\n") && answer.ends_with("# EOF\n"), "{answer}");
        for accept in ["", "Accept: */*\r\n", "Accept: application/openmetrics-text;q=0.1,text/plain;q=0.2\r\n"] {
            let answer = get_as(address, "/metrics", accept).await;
            assert!(answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{answer}");
            let family = "\n# TYPE penstock_ingest_gaps_total counter\npenstock_ingest_gaps_total 1\n";
            assert!(answer.contains(family) && !answer.contains("# EOF"), "{answer}");
        }
    }

    #[tokio::test]
    async fn the_log_level_is_asked_for_and_refused_where_it_is_none() {
        let (address, _task, _shutdown) = start(&Health::new(), &Metrics::new()).await;
        assert_eq!(ask_log_level(address, None).await.unwrap(), log_level());
        // The client refuses by itself; so does the server, whoever asks.
        for (level, why) in [("loud", "is not a level"), ("nonsense=", "has no level after its ="), ("", "it is empty")]
        {
            let error = ask_log_level(address, Some(level)).await.unwrap_err();
            assert!(matches!(error, TelemetryError::ParseLogFilter { .. }), "{error}");
            let answer = put_level(address, level).await;
            assert!(answer.starts_with("HTTP/1.1 400") && answer.ends_with(&format!("{error}\n")), "{answer}");
            assert!(answer.contains(why) && answer.contains("info,penstock_ingest=debug"), "{answer}");
        }
        let answer = put_level(address, &"info,".repeat(LONGEST_LEVEL)).await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    }

    #[tokio::test]
    async fn readiness_follows_the_checks_and_liveness_does_not() {
        let health = Health::new();
        let redis = health.check("redis");
        let (address, _task, _shutdown) = start(&health, &Metrics::new()).await;
        redis.failing("connection refused");
        let answer = get(address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(
            answer.ends_with(r#"{"checks":{"redis":{"detail":"connection refused","ok":false}},"status":"not ready"}"#)
        );
        assert!(get(address, "/healthz").await.ends_with(r#"{"status":"ok"}"#));
        healthcheck(address).await.unwrap();
        redis.ok();
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn a_missed_heartbeat_fails_the_healthcheck() {
        let health = Health::new();
        let decoder = health.heartbeat("decoder", Duration::ZERO);
        let (address, _task, _shutdown) = start(&health, &Metrics::new()).await;
        let error = loop {
            match healthcheck(address).await {
                Err(error) => break error.to_string(),
                Ok(()) => tokio::task::yield_now().await,
            }
        };
        assert!(error.contains("503") && error.contains("decoder"), "{error}");
        decoder.retire();
        healthcheck(address).await.unwrap();
    }

    #[tokio::test]
    async fn shutdown_is_not_held_up_by_a_client_that_says_nothing() {
        let (address, task, shutdown) = start(&Health::new(), &Metrics::new()).await;
        let _idle = TcpStream::connect(address).await.unwrap();
        get(address, "/healthz").await;
        shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(5), task).await.unwrap().unwrap();
        assert!(matches!(healthcheck(address).await, Err(TelemetryError::AskHealth { .. })));
    }

    #[tokio::test]
    async fn a_taken_address_is_named() {
        let (address, _task, _shutdown) = start(&Health::new(), &Metrics::new()).await;
        let error = serve(address, Health::new(), Metrics::new(), CancellationToken::new()).await.unwrap_err();
        assert_eq!(error.to_string(), format!("could not bind the admin address {address}"));
    }
}
