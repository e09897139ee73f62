//! A healer of the test's own: it speaks the routes, and gets as far as the test says.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use axum::{Json, Router};
use penstock_core::backfill::{BackfillRequest, BackfillState, BackfillStatus, Backlog};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// The healers of all pipelines, at one address; away when dropped.
pub(crate) struct Healer {
    pub(crate) url: String,
    state: Arc<Mutex<Known>>,
    serve: JoinHandle<()>,
}

#[derive(Default)]
struct Known {
    backfills: BTreeMap<String, BackfillStatus>,
    /// Every request for a backfill, with its name.
    puts: Vec<(String, BackfillRequest)>,
    deletes: Vec<String>,
    /// What was shown as the token.
    tokens: Vec<String>,
    backlog: Backlog,
    /// What every registration is refused with.
    refusal: Option<String>,
    /// Whether the database of the healer is away.
    away: bool,
}

type Shared = State<Arc<Mutex<Known>>>;

// === impl Healer ===

impl Healer {
    pub(crate) async fn start() -> Self {
        let state = Arc::new(Mutex::new(Known::default()));
        let router = Router::new()
            .route("/{namespace}/{pipeline}/backfills/{*name}", get(one).put(put).delete(delete))
            .route("/{namespace}/{pipeline}/backlog", get(backlog))
            .with_state(Arc::clone(&state));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/{{namespace}}/{{name}}", listener.local_addr().unwrap());
        let serve = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, state, serve }
    }

    /// Sets how far every backfill is.
    pub(crate) fn report(&self, change: impl Fn(&mut BackfillStatus)) {
        self.known().backfills.values_mut().for_each(change);
    }

    pub(crate) fn set_backlog(&self, backlog: Backlog) {
        self.known().backlog = backlog;
    }

    pub(crate) fn refuse(&self, words: Option<&str>) {
        self.known().refusal = words.map(str::to_owned);
    }

    pub(crate) fn set_away(&self, away: bool) {
        self.known().away = away;
    }

    pub(crate) fn puts(&self) -> Vec<(String, BackfillRequest)> {
        self.known().puts.clone()
    }

    pub(crate) fn deletes(&self) -> Vec<String> {
        self.known().deletes.clone()
    }

    pub(crate) fn tokens(&self) -> Vec<String> {
        self.known().tokens.clone()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.state.lock().unwrap()
    }
}

impl Drop for Healer {
    fn drop(&mut self) {
        self.serve.abort();
    }
}

type Answer = (StatusCode, Json<Value>);

fn admitted(known: &mut Known, headers: &HeaderMap) -> Result<(), Answer> {
    let shown = headers.get("authorization").and_then(|shown| shown.to_str().ok()?.strip_prefix("Bearer "));
    known.tokens.extend(shown.map(str::to_owned));
    match known.away {
        true => Err((StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": "the database did not answer" })))),
        false => Ok(()),
    }
}

async fn one(State(state): Shared, Path((.., name)): Path<(String, String, String)>, headers: HeaderMap) -> Answer {
    let mut known = state.lock().unwrap();
    if let Err(away) = admitted(&mut known, &headers) {
        return away;
    }
    match known.backfills.get(&name) {
        Some(status) => (StatusCode::OK, Json(serde_json::to_value(status).unwrap())),
        None => (StatusCode::NOT_FOUND, Json(json!({ "error": "there is no such backfill" }))),
    }
}

async fn put(
    State(state): Shared,
    Path((.., name)): Path<(String, String, String)>,
    headers: HeaderMap,
    Json(request): Json<BackfillRequest>,
) -> Answer {
    let mut known = state.lock().unwrap();
    if let Err(away) = admitted(&mut known, &headers) {
        return away;
    }
    if let Some(refusal) = &known.refusal {
        return (StatusCode::CONFLICT, Json(json!({ "error": refusal })));
    }
    let request = request.checked().unwrap();
    known.puts.push((name.clone(), request.clone()));
    let status = known.backfills.entry(name.clone()).or_insert_with(|| fresh(&name, &request));
    status.rate = request.rate;
    status.parallelism = request.parallelism;
    status.priority = request.priority;
    status.state = match (request.suspend, status.total) {
        (true, _) => BackfillState::Paused,
        (false, Some(_)) => BackfillState::Running,
        (false, None) => BackfillState::Listing,
    };
    (StatusCode::OK, Json(serde_json::to_value(status).unwrap()))
}

async fn delete(State(state): Shared, Path((.., name)): Path<(String, String, String)>, headers: HeaderMap) -> Answer {
    let mut known = state.lock().unwrap();
    if let Err(away) = admitted(&mut known, &headers) {
        return away;
    }
    known.deletes.push(name.clone());
    match known.backfills.remove(&name) {
        Some(_) => (StatusCode::NO_CONTENT, Json(Value::Null)),
        None => (StatusCode::NOT_FOUND, Json(json!({ "error": "there is no such backfill" }))),
    }
}

async fn backlog(State(state): Shared, headers: HeaderMap) -> Answer {
    let mut known = state.lock().unwrap();
    match admitted(&mut known, &headers) {
        Ok(()) => (StatusCode::OK, Json(serde_json::to_value(known.backlog).unwrap())),
        Err(away) => away,
    }
}

fn fresh(name: &str, request: &BackfillRequest) -> BackfillStatus {
    let now = jiff::Timestamp::now().to_string();
    BackfillStatus {
        name: name.to_owned(),
        scope: request.scope.clone(),
        reason: "backfill".to_owned(),
        relay: request.relay.clone(),
        rate: None,
        parallelism: None,
        priority: 0,
        verify: request.verify,
        state: BackfillState::Listing,
        listed: 0,
        total: None,
        done: 0,
        failed: 0,
        waiting: 0,
        running: 0,
        records: 0,
        records_per_second: 0.0,
        repos_per_second: 0.0,
        ends_at: None,
        created_at: now.clone(),
        updated_at: now,
        finished_at: None,
        error: None,
    }
}
