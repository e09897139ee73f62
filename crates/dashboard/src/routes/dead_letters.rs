//! What failed for good: listed for whoever may read, put back or deleted by whoever may administrate.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use penstock_core::stream::StreamId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::api::{Access, Api};
use super::problem::Problem;
use crate::App;
use crate::dead_letters::{DeadLetters, Letter, Replayed};

const AT: &str = "/api/redis/dead-letters";
const ONE: &str = "/api/redis/dead-letters/{id}";
const REPLAY: &str = "/api/redis/dead-letters/replay";
const REPLAY_ONE: &str = "/api/redis/dead-letters/{id}/replay";

/// How many letters a page has where nothing is said, and at most.
const PAGE: (u16, u16) = (100, 1000);

const NONE: Problem =
    Problem::new(StatusCode::NOT_FOUND, "there is no dead letter of this id; it may have been replayed");
const NO_ID: Problem = Problem::new(StatusCode::BAD_REQUEST, "the id in the path must be like 1700000000000-0");
const NO_CURSOR: Problem =
    Problem::new(StatusCode::BAD_REQUEST, "cursor must be what the page before gave as cursor, like 1700000000000-0");
const NO_LIMIT: Problem = Problem::new(StatusCode::BAD_REQUEST, "limit must be a number in 1..=1000");
const NO_QUERY: Problem = Problem::new(StatusCode::BAD_REQUEST, "the query takes limit and cursor, each once");
const NO_EVENT: Problem = Problem::new(
    StatusCode::CONFLICT,
    "this is no event of the stream (commit, identity, account) and cannot be replayed",
);
const FULL: Problem = Problem::new(
    StatusCode::SERVICE_UNAVAILABLE,
    "the stream is full, or Redis is: replay when the workers have caught up",
);

#[derive(Deserialize)]
struct Asked {
    limit: Option<String>,
    cursor: Option<String>,
}

/// Some dead letters, the newest first.
#[derive(Debug, Serialize, JsonSchema)]
struct DeadLetterPage<'l> {
    items: Vec<DeadLetter<'l>>,
    /// What to send as `cursor` for the next page; null on the last one.
    cursor: Option<String>,
}

/// An entry that failed for good, every field as it stands in Redis.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct DeadLetter<'l> {
    /// Its ID among the dead letters.
    id: String,
    /// `commit`, `identity`, `account`; `raw` and `message` cannot be replayed.
    r#type: &'l str,
    /// The entry's data, most often JSON; in base64 for `raw`.
    data: &'l str,
    /// The relay's sequence number; empty where there was none.
    seq: &'l str,
    /// The ID that it had in the stream at first; empty where it was never there.
    orig_id: &'l str,
    /// How often it was delivered.
    deliveries: &'l str,
    /// Why it failed.
    error: Option<&'l str>,
    /// Who gave it up.
    consumer: Option<&'l str>,
    /// Fields of other writers.
    #[serde(flatten)]
    more: BTreeMap<&'l str, &'l str>,
}

/// What came of a replay.
#[derive(Debug, Serialize, JsonSchema)]
struct ReplayAnswer {
    success: bool,
    /// Put back into the stream.
    replayed: u64,
    /// Left, as they are no events.
    left: u64,
}

/// What came of a deletion.
#[derive(Debug, Serialize, JsonSchema)]
struct DeleteAnswer {
    success: bool,
    /// How many are gone. Their copies in PostgreSQL stay.
    deleted: u64,
}

/// Registers the routes.
pub(super) fn register(api: &mut Api) {
    api.get(AT, Access::Read, list)
        .says("Lists dead letters, the newest first: a page, of about 1 MB at most.")
        .query("limit", "integer", "how many at most, 1 to 1000; 100 by default")
        .query("cursor", "string", "the cursor of the page before")
        .answers::<DeadLetterPage<'_>>("a page")
        .tells(400, "limit or cursor are not as they must be")
        .tells(503, "Redis is away");
    api.get(ONE, Access::Read, one)
        .says("Gives one dead letter.")
        .answers::<DeadLetter<'_>>("the dead letter")
        .tells(400, "the id is no id")
        .tells(404, "there is none of this id")
        .tells(503, "Redis is away");
    api.post(REPLAY_ONE, Access::Admin, replay)
        .says("Puts one dead letter back into the stream as it was, with the ID that it had at first.")
        .answers::<ReplayAnswer>("it is back in the stream, and no dead letter any more")
        .tells(404, "there is none of this id")
        .tells(409, "it is no event of the stream")
        .tells(503, "Redis is away, or the stream is full");
    api.post(REPLAY, Access::Admin, replay_all)
        .says("Puts all dead letters back that are there now, the oldest first.")
        .answers::<ReplayAnswer>("how many are back in the stream")
        .tells(503, "Redis is away, or the stream is full: the detail says how many are back");
    api.delete(ONE, Access::Admin, delete)
        .says("Deletes one dead letter; its copy in PostgreSQL stays.")
        .answers::<DeleteAnswer>("it is gone")
        .tells(404, "there is none of this id")
        .tells(503, "Redis is away");
    api.delete(AT, Access::Admin, purge)
        .says("Deletes all dead letters; their copies in PostgreSQL stay.")
        .answers::<DeleteAnswer>("they are gone")
        .tells(503, "Redis is away");
}

async fn list(State(app): State<Arc<App>>, asked: Result<Query<Asked>, QueryRejection>) -> Result<Response, Problem> {
    let Query(Asked { limit, cursor }) = asked.map_err(|_| NO_QUERY)?;
    let limit = limit.map_or(Ok(PAGE.0), |limit| limit.parse().map_err(|_| NO_LIMIT))?;
    if !(1..=PAGE.1).contains(&limit) {
        return Err(NO_LIMIT);
    }
    let before = cursor.map(|cursor| cursor.parse().map_err(|_| NO_CURSOR)).transpose()?;
    let page = in_redis(&app, async |letters| letters.page(before, limit).await).await?;
    let items = page.letters.iter().map(DeadLetter::from).collect();
    super::answer(&DeadLetterPage { items, cursor: page.next.map(|id| id.to_string()) })
}

async fn one(State(app): State<Arc<App>>, path: Result<Path<String>, PathRejection>) -> Result<Response, Problem> {
    let id = id(path)?;
    let letter = in_redis(&app, async |letters| letters.get(id).await).await?.ok_or(NONE)?;
    super::answer(&DeadLetter::from(&letter))
}

async fn replay(State(app): State<Arc<App>>, path: Result<Path<String>, PathRejection>) -> Result<Response, Problem> {
    let id = id(path)?;
    match in_redis(&app, async |letters| letters.replay(id).await).await? {
        Replayed { full: true, .. } => Err(FULL),
        Replayed { left: 1.., .. } => Err(NO_EVENT),
        Replayed { replayed: 0, .. } => Err(NONE),
        Replayed { replayed, left, .. } => {
            app.events.dead_letters_replayed(replayed);
            super::answer(&ReplayAnswer { success: true, replayed, left })
        }
    }
}

async fn replay_all(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let Replayed { replayed, left, full } = in_redis(&app, async |letters| letters.replay_all().await).await?;
    app.events.dead_letters_replayed(replayed);
    if full {
        let detail = format!(
            "{replayed} dead letters are back in the stream; now it is full, or Redis is: replay the others when the \
             workers have caught up"
        );
        return Err(Problem::told(StatusCode::SERVICE_UNAVAILABLE, detail));
    }
    super::answer(&ReplayAnswer { success: true, replayed, left })
}

async fn delete(State(app): State<Arc<App>>, path: Result<Path<String>, PathRejection>) -> Result<Response, Problem> {
    let id = id(path)?;
    if !in_redis(&app, async |letters| letters.delete(id).await).await? {
        return Err(NONE);
    }
    app.events.dead_letters_deleted(1);
    super::answer(&DeleteAnswer { success: true, deleted: 1 })
}

async fn purge(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let deleted = in_redis(&app, async |letters| letters.purge().await).await?;
    app.events.dead_letters_deleted(deleted);
    super::answer(&DeleteAnswer { success: true, deleted })
}

async fn in_redis<T>(
    app: &App,
    ask: impl AsyncFnOnce(DeadLetters<'_>) -> Result<T, fred::error::Error>,
) -> Result<T, Problem> {
    let (client, _) = app.client_and_snapshot().ok_or(Problem::REDIS_AWAY)?;
    ask(DeadLetters::new(&client, &app.settings))
        .await
        .map_err(|error| super::refused(&app.events, "dead letters", &error))
}

fn id(path: Result<Path<String>, PathRejection>) -> Result<StreamId, Problem> {
    path.map_err(|_| NO_ID)?.parse().map_err(|_| NO_ID)
}

// === impl DeadLetter ===

impl<'l> From<&'l Letter> for DeadLetter<'l> {
    fn from(letter: &'l Letter) -> Self {
        use penstock_core::stream::field::{CONSUMER, DATA, DELIVERIES, ERROR, ORIG_ID, SEQ, TYPE};
        let known = [TYPE, DATA, SEQ, ORIG_ID, DELIVERIES, ERROR, CONSUMER, "id"];
        let text = |name| letter.field(name).unwrap_or_default();
        let more = letter.fields.iter().filter(|(name, _)| !known.contains(&name.as_str()));
        Self {
            id: letter.id.to_string(),
            r#type: text(TYPE),
            data: text(DATA),
            seq: text(SEQ),
            orig_id: text(ORIG_ID),
            deliveries: text(DELIVERIES),
            error: letter.field(ERROR),
            consumer: letter.field(CONSUMER),
            more: more.map(|(name, value)| (name.as_str(), value.as_str())).collect(),
        }
    }
}
