//! How large the tables are, as far as PostgreSQL was asked.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::api::{Access, Api};
use super::problem::Problem;
use crate::App;
use crate::tables::Tables;

const NO_DATABASE: Problem =
    Problem::new(StatusCode::NOT_FOUND, "no database is configured: set postgres.url (DATABASE_URL) for the dashboard");

/// Registers the route.
pub(super) fn register(api: &mut Api) {
    api.get("/api/tables", Access::Read, tables)
        .says(
            "Lists the tables of the database with their estimated rows, their size and growth, at most a minute old.",
        )
        .answers::<Tables>("the tables, the largest first")
        .tells(404, "no database is configured");
}

async fn tables(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    if app.settings.postgres.url.is_none() {
        return Err(NO_DATABASE);
    }
    let known = app.tables.borrow().clone();
    match known {
        Some(body) => Ok(super::json(body)),
        None => super::answer(&Tables { timestamp: None, growth_seconds: None, tables: Vec::new() }),
    }
}
