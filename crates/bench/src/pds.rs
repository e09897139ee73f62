//! The host of the measurements, in a process of its own: it has all repos, lists them as a relay does, and is the directory too.
//!
//! Repos are made and signed ahead, so that serving them costs little beside reading them.

use std::collections::HashMap;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path as UrlPath, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use penstock_repo::testing::did;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::spawn_blocking;

use crate::error::Error;
use crate::process::Service;
use crate::relay;
use crate::repos::{REV, repo};

/// What the child says once it serves.
const READY: &str = "ready";

/// Repos of a page, where nothing is said.
const PAGE: usize = 500;

/// A host that runs.
#[derive(Debug)]
pub(crate) struct Pds {
    service: Service,
    address: SocketAddr,
    pub(crate) repos: u64,
    /// Of all repos.
    pub(crate) records: u64,
}

/// What the child has.
#[derive(Debug)]
struct Hosted {
    /// The CAR and the document of each account, in the order of their DIDs.
    repos: Vec<(String, Bytes, Bytes)>,
}

/// Serves so many repos with so many records each until stdin ends.
pub(crate) async fn serve(address: SocketAddr, repos: u64, records: u64) -> Result<(), Error> {
    let origin = format!("http://{address}");
    let hosted = spawn_blocking(move || Hosted::new(&origin, repos, records)).await?;
    let listener = TcpListener::bind(address).await.map_err(Error::io("open the host"))?;
    let router = Router::new()
        .route("/{did}", get(document))
        .route("/xrpc/com.atproto.sync.listRepos", get(list))
        .route("/xrpc/com.atproto.sync.getRepo", get(car))
        .with_state(Arc::new(hosted));
    println!("{READY}");
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = ended.send(());
    });
    tokio::select! {
        served = axum::serve(listener, router).into_future() => served.map_err(Error::io("serve repos")),
        _ = end => Ok(()),
    }
}

async fn document(State(hosted): State<Arc<Hosted>>, UrlPath(did): UrlPath<String>) -> Response {
    let document = hosted.of(&did).map(|(.., document)| document.clone());
    answer("application/json", document)
}

async fn car(State(hosted): State<Arc<Hosted>>, Query(query): Query<HashMap<String, String>>) -> Response {
    let car = query.get("did").and_then(|did| hosted.of(did)).map(|(_, car, _)| car.clone());
    answer("application/vnd.ipld.car", car)
}

async fn list(State(hosted): State<Arc<Hosted>>, Query(query): Query<HashMap<String, String>>) -> Response {
    let after = query.get("cursor").map_or("", String::as_str);
    let limit = query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(PAGE);
    let page: Vec<&str> =
        hosted.repos.iter().map(|(did, ..)| did.as_str()).filter(|did| *did > after).take(limit).collect();
    let repos: Vec<Value> =
        page.iter().map(|did| json!({"did": did, "rev": REV, "head": "", "active": true})).collect();
    let mut answered = json!({"repos": repos});
    if let (Some(last), Some(fields)) = (page.last().filter(|_| page.len() == limit), answered.as_object_mut()) {
        fields.insert("cursor".to_owned(), json!(last));
    }
    answer("application/json", Some(answered.to_string().into()))
}

fn answer(kind: &'static str, body: Option<Bytes>) -> Response {
    match body {
        Some(body) => ([(header::CONTENT_TYPE, kind)], Body::from(body)).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

// === impl Hosted ===

impl Hosted {
    fn new(origin: &str, repos: u64, records: u64) -> Self {
        let made = (0..repos).map(|n| {
            let repo = repo(n, repos, records);
            let mut document = repo.account.document(origin);
            // Nobody has to ask the network whose a handle is.
            if let Some(fields) = document.as_object_mut() {
                fields.insert("alsoKnownAs".to_owned(), json!([]));
            }
            (did(n), repo.car().into(), document.to_string().into())
        });
        let mut repos: Vec<(String, Bytes, Bytes)> = made.collect();
        repos.sort_unstable_by(|(one, ..), (other, ..)| one.cmp(other));
        Self { repos }
    }

    fn of(&self, did: &str) -> Option<&(String, Bytes, Bytes)> {
        let at = self.repos.binary_search_by(|(one, ..)| one.as_str().cmp(did)).ok()?;
        self.repos.get(at)
    }
}

// === impl Pds ===

impl Pds {
    /// Starts one, and returns once its repos are made.
    pub(crate) async fn start(folder: &Path, repos: u64, each: u64) -> Result<Self, Error> {
        let start = |source| Error::Start { name: "host", source };
        let address = relay::free_address()?;
        let mut command = Command::new(std::env::current_exe().map_err(start)?);
        command.args(["--host", &address.to_string(), "--repos", &repos.to_string(), "--events", &each.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut service = Service::start("host", folder, command)?;
        if let Some(stdout) = service.child().stdout.take() {
            let mut lines = BufReader::new(stdout).lines();
            while lines.next_line().await.map_err(start)?.is_some_and(|line| line != READY) {}
        }
        service.check()?;
        Ok(Self { service, address, repos, records: repos * each })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens, as a relay's address.
    pub(crate) fn relay(&self) -> String {
        format!("ws://{}", self.address)
    }

    pub(crate) async fn stop(mut self) -> Result<(), Error> {
        drop(self.service.child().stdin.take());
        self.service.end().await
    }
}
