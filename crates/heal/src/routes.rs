//! How others ask for backfills: the healer's routes on its admin address, behind a bearer token.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use penstock_core::backfill::BackfillRequest;
use penstock_core::causes::chain;
use penstock_core::settings::Heal;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::backfills::PutError;
use crate::engine::Engine;

/// The routes; they answer 503 until the healer has its database.
#[derive(Clone, Debug)]
pub struct Routes {
    engine: Arc<OnceLock<Engine>>,
    /// The SHA-256 of each token that is let in.
    admitted: Vec<Vec<u8>>,
}

/// What is answered where nothing is done.
type Refusal = (StatusCode, Json<Value>);

// === impl Routes ===

impl Routes {
    /// Makes them for whoever shows the token, or the one of the hash; without either they are closed.
    #[must_use]
    pub fn new(settings: &Heal) -> Self {
        let token = settings.admin_token.as_ref().map(|token| token.expose()).filter(|token| !token.is_empty());
        let token = token.map(|token| Sha256::digest(token.as_bytes()).to_vec());
        let hash = settings.admin_token_hash.as_deref().and_then(bytes);
        Self { engine: Arc::default(), admitted: token.into_iter().chain(hash).collect() }
    }

    /// Lets them answer.
    pub fn open(&self, engine: Engine) {
        let _ = self.engine.set(engine);
    }

    /// Returns the router: `PUT`, `GET` and `DELETE` of `/backfills/{name}`, `GET` of `/backfills` and `/backlog`.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/backfills", get(list))
            .route("/backfills/{*name}", get(one).put(put).delete(delete))
            .route("/backlog", get(backlog))
            .with_state(self.clone())
            .layer(from_fn_with_state(self.clone(), admit))
    }

    fn engine(&self) -> Result<&Engine, Refusal> {
        let absent = || refuse(StatusCode::SERVICE_UNAVAILABLE, "the healer is not connected to its database yet");
        self.engine.get().ok_or_else(absent)
    }

    fn admits(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        if self.admitted.is_empty() {
            return Err(refuse(StatusCode::FORBIDDEN, "these routes are closed: set heal.adminToken to open them"));
        }
        let shown = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes()).unwrap_or_default();
        let shown = shown.strip_prefix(b"Bearer ").unwrap_or_default();
        let shown = Sha256::digest(shown);
        if self.admitted.iter().any(|admitted| bool::from(shown.as_slice().ct_eq(admitted))) {
            return Ok(());
        }
        Err(refuse(StatusCode::UNAUTHORIZED, "show heal.adminToken as a bearer token"))
    }
}

async fn admit(State(routes): State<Routes>, request: Request, next: Next) -> Response {
    match routes.admits(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

async fn list(State(routes): State<Routes>) -> Result<Response, Refusal> {
    let listed = routes.engine()?.backfills().list().await.map_err(|error| unavailable(&error))?;
    Ok(Json(listed).into_response())
}

async fn one(State(routes): State<Routes>, Path(name): Path<String>) -> Result<Response, Refusal> {
    let found = routes.engine()?.backfills().get(&name).await.map_err(|error| unavailable(&error))?;
    found.map(|status| Json(status).into_response()).ok_or_else(|| no_such(&name))
}

async fn put(State(routes): State<Routes>, Path(name): Path<String>, body: Bytes) -> Result<Response, Refusal> {
    let request: BackfillRequest = serde_json::from_slice(&body)
        .map_err(|error| refuse(StatusCode::BAD_REQUEST, &format!("the body is no backfill: {error}")))?;
    match routes.engine()?.backfills().put(&name, request).await {
        Ok(status) => Ok(Json(status).into_response()),
        Err(error @ (PutError::Name { .. } | PutError::Request(_))) => {
            Err(refuse(StatusCode::BAD_REQUEST, &error.to_string()))
        }
        Err(error @ PutError::Exists { .. }) => Err(refuse(StatusCode::CONFLICT, &error.to_string())),
        Err(PutError::Write(error)) => Err(unavailable(&error)),
    }
}

async fn delete(State(routes): State<Routes>, Path(name): Path<String>) -> Result<Response, Refusal> {
    let was_there = routes.engine()?.backfills().delete(&name).await.map_err(|error| unavailable(&error))?;
    if was_there { Ok(StatusCode::NO_CONTENT.into_response()) } else { Err(no_such(&name)) }
}

async fn backlog(State(routes): State<Routes>) -> Result<Response, Refusal> {
    let engine = routes.engine()?;
    let all = engine.shared.settings.heal.enabled;
    let backlog = engine.queue().backlog(all).await.map_err(|error| unavailable(&error))?;
    Ok(Json(backlog).into_response())
}

/// Reads hexadecimal digits.
fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits: Vec<char> = hex.chars().collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).ok()).collect()
}

fn unavailable(error: &sqlx::Error) -> Refusal {
    refuse(StatusCode::SERVICE_UNAVAILABLE, &format!("the database did not answer: {}", chain(error)))
}

fn no_such(name: &str) -> Refusal {
    let name: String = name.chars().take(100).collect();
    refuse(StatusCode::NOT_FOUND, &format!("there is no backfill {name}"))
}

fn refuse(status: StatusCode, why: &str) -> Refusal {
    (status, Json(json!({ "error": why })))
}

#[cfg(test)]
mod tests {
    use penstock_core::settings::{Layers, Settings};

    use super::*;

    /// The SHA-256 of `sesame`.
    const HASH: &str = "d0c04f4b1951e4aeaaec8223ed2039e542f3aae805a6fa7f6d794e5afff5d272";

    fn admits(flags: &[(&str, &str)], shown: &str) -> bool {
        let layers = flags.iter().fold(Layers::default(), |layers, (path, value)| layers.flag(path, *value));
        let routes = Routes::new(&Settings::load(&layers).unwrap().heal);
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, shown.parse().unwrap());
        routes.admits(&headers).is_ok()
    }

    #[test]
    fn a_token_is_known_by_itself_or_by_its_hash() {
        for flags in [[("heal.adminToken", "sesame")], [("heal.adminTokenHash", HASH)]] {
            assert!(admits(&flags, "Bearer sesame"), "{flags:?}");
            for shown in ["Bearer other", "Bearer ", "sesame", &format!("Bearer {HASH}")] {
                assert!(!admits(&flags, shown), "{flags:?}: {shown}");
            }
        }
        assert!(!admits(&[], "Bearer sesame") && !admits(&[], "Bearer "));
        let short = Layers::default().flag("heal.adminTokenHash", "abc");
        assert!(Settings::load(&short).unwrap_err().to_string().contains("heal.adminTokenHash"));
    }
}
