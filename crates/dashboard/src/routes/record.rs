//! The record of an event: what was made of it in PostgreSQL, and where else to look.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::api::{Access, Api};
use super::problem::Problem;
use crate::App;
use crate::stored::RecordUri;

const NO_URI: Problem =
    Problem::new(StatusCode::BAD_REQUEST, "uri must look like at://did:plc:…/app.bsky.feed.post/3k…, percent-encoded");
const NO_DATABASE: Problem = Problem::new(
    StatusCode::SERVICE_UNAVAILABLE,
    "records cannot be read without a database: set postgres.url (DATABASE_URL) for the dashboard",
);
const POSTGRES_AWAY: Problem =
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "postgres does not answer, or has none of the tables");
const TOO_LARGE: Problem = Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the record is larger than 512 kB");

#[derive(Deserialize)]
struct Asked {
    uri: String,
}

/// A record, as far as it is stored.
#[derive(Debug, Serialize, JsonSchema)]
struct StoredRecord {
    uri: String,
    /// The table that holds it; null where it is not stored.
    table: Option<&'static str>,
    /// The row as JSON, by its columns; null where it is not stored.
    #[schemars(with = "serde_json::Value")]
    record: Option<Box<RawValue>>,
    /// Public viewers of the record. Nothing here asks them.
    links: Vec<Link>,
}

/// A viewer of records.
#[derive(Debug, Serialize, JsonSchema)]
struct Link {
    name: &'static str,
    href: String,
}

/// Registers the route.
pub(super) fn register(api: &mut Api) {
    api.get("/api/events/record", Access::Read, record)
        .says("Returns what is stored of a record in PostgreSQL.")
        .query("uri", "string", "the URI of the record, at://<did>/<collection>/<rkey>")
        .answers::<StoredRecord>("the row, or nulls where it is not stored (yet, or any more)")
        .tells(400, "the URI is not as it must be")
        .tells(413, "the record is larger than 512 kB")
        .tells(503, "PostgreSQL is away, or the dashboard has no address of it");
}

async fn record(State(app): State<Arc<App>>, asked: Result<Query<Asked>, QueryRejection>) -> Result<Response, Problem> {
    let uri = asked.ok().and_then(|Query(Asked { uri })| RecordUri::read(&uri)).ok_or(NO_URI)?;
    let found = app.stored.as_ref().ok_or(NO_DATABASE)?.record(&uri).await.map_err(|error| {
        app.events.postgres_refused("a record", &error);
        POSTGRES_AWAY
    })?;
    let record = match &found {
        Some(found) => Some(RawValue::from_string(found.row.clone().ok_or(TOO_LARGE)?).map_err(|_| POSTGRES_AWAY)?),
        None => None,
    };
    let links = uri.links().into_iter().map(|(name, href)| Link { name, href }).collect();
    super::answer(&StoredRecord { uri: uri.to_string(), table: found.map(|found| found.table), record, links })
}
