//! What failed for good: listed for whoever may read, put back or deleted by whoever may administrate.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use penstock_core::stream::StreamId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::api::{Access, Api};
use super::letters::{FULL, NO_EVENT, TOO_OLD, in_redis_now};
use super::problem::Problem;
use crate::App;
use crate::dead_letters::{DeadLetters, Head, Letter, Replayed};

const AT: &str = "/api/redis/dead-letters";
const ONE: &str = "/api/redis/dead-letters/{id}";
const REPLAY: &str = "/api/redis/dead-letters/replay";
const REPLAY_ONE: &str = "/api/redis/dead-letters/{id}/replay";

/// How many letters a page has where nothing is said, and at most.
const PAGE: (u16, u16) = (100, 1000);

const NONE: Problem =
    Problem::new(StatusCode::NOT_FOUND, "there is no dead letter with this id; it may have been replayed");
const NO_ID: Problem = Problem::new(StatusCode::BAD_REQUEST, "the id in the path must look like 1700000000000-0");
const NO_CURSOR: Problem =
    Problem::new(StatusCode::BAD_REQUEST, "cursor must be the cursor of the previous page, such as 1700000000000-0");
const NO_LIMIT: Problem = Problem::new(StatusCode::BAD_REQUEST, "limit must be an integer from 1 to 1000");
const NO_QUERY: Problem =
    Problem::new(StatusCode::BAD_REQUEST, "only limit and cursor are allowed in the query, each once");
#[derive(Deserialize)]
struct Asked {
    limit: Option<String>,
    cursor: Option<String>,
}

/// One page of dead letters, newest first.
#[derive(Debug, Serialize, JsonSchema)]
struct DeadLetterPage<'l> {
    items: Vec<DeadLetter<'l>>,
    /// What to send as `cursor` for the next page; null on the last one.
    cursor: Option<String>,
}

/// An entry that failed permanently; every field as stored in Redis.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct DeadLetter<'l> {
    /// Its ID among the dead letters.
    id: String,
    /// `commit`, `identity`, `account`; `raw` and `message` cannot be replayed.
    r#type: &'l str,
    /// The entry's data, usually JSON; base64 for `raw`.
    data: &'l str,
    /// The relay's sequence number; empty if there was none.
    seq: &'l str,
    /// Its original ID in the stream; empty if it was never there.
    orig_id: &'l str,
    /// Number of deliveries.
    deliveries: &'l str,
    /// Why it failed.
    error: Option<&'l str>,
    /// The consumer that gave it up.
    consumer: Option<&'l str>,
    /// The DID of its repo; absent if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    repo: Option<&'l str>,
    /// The length of the data in bytes, where `data` is cut to 512 kB; `GET /api/dead-letters/export` has it whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    cut_of: Option<u64>,
    /// Fields of other writers.
    #[serde(flatten)]
    more: BTreeMap<&'l str, &'l str>,
}

/// The result of a replay.
#[derive(Debug, Serialize, JsonSchema)]
struct ReplayAnswer {
    success: bool,
    /// Put back into the stream.
    replayed: u64,
    /// Kept because they are not events.
    left: u64,
    /// Kept because their events are older than `worker.letterHold`: a replay could restore what was deleted since.
    refused: u64,
}

/// The result of a deletion.
#[derive(Debug, Serialize, JsonSchema)]
struct DeleteAnswer {
    success: bool,
    /// Number of dead letters deleted. Their copies in PostgreSQL stay.
    deleted: u64,
}

/// Registers the routes.
pub(super) fn register(api: &mut Api) {
    api.get(AT, Access::Read, list)
        .says("Lists dead letters, newest first, in pages of at most about 1 MB.")
        .query("limit", "integer", "maximum number of dead letters, 1 to 1000; default 100")
        .query("cursor", "string", "the cursor of the previous page")
        .answers::<DeadLetterPage<'_>>("a page")
        .tells(400, "limit or cursor are not as they must be")
        .tells(503, "Redis is unavailable");
    api.heavy(ONE, Access::Read, one)
        .says("Returns one dead letter; long data is cut.")
        .answers::<DeadLetter<'_>>("the dead letter")
        .tells(400, "the id is not valid")
        .tells(404, "there is no dead letter with this id")
        .tells(429, "too many were opened from this address within a second")
        .tells(503, "Redis is unavailable");
    api.post(REPLAY_ONE, Access::Admin, replay)
        .says("Puts one dead letter back into the stream unchanged, with its original ID.")
        .answers::<ReplayAnswer>("it is back in the stream and no longer a dead letter")
        .tells(404, "there is no dead letter with this id")
        .tells(409, "it is no event of the stream")
        .tells(410, "its event is older than worker.letterHold: a replay could bring back what was deleted since")
        .tells(503, "Redis is unavailable, or the stream is full");
    api.post(REPLAY, Access::Admin, replay_all)
        .says("Puts all current dead letters back into the stream, oldest first.")
        .answers::<ReplayAnswer>("how many were replayed")
        .tells(503, "Redis is unavailable, or the stream is full; the detail says how many were replayed");
    api.delete(ONE, Access::Admin, delete)
        .says("Deletes one dead letter; its copy in PostgreSQL stays.")
        .answers::<DeleteAnswer>("deleted")
        .tells(404, "there is no dead letter with this id")
        .tells(503, "Redis is unavailable");
    api.delete(AT, Access::Admin, purge)
        .says("Deletes all dead letters; their copies in PostgreSQL stay.")
        .answers::<DeleteAnswer>("deleted")
        .tells(503, "Redis is unavailable");
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
    let letter = in_redis(&app, async |letters| letters.look(id).await).await?.ok_or(NONE)?;
    super::answer(&DeadLetter::from(&letter))
}

async fn replay(State(app): State<Arc<App>>, path: Result<Path<String>, PathRejection>) -> Result<Response, Problem> {
    let id = id(path)?;
    let head = head(&app, id).await;
    match in_redis(&app, async |letters| letters.replay(id).await).await? {
        Replayed { full: true, .. } => Err(FULL),
        Replayed { left: 1.., .. } => Err(NO_EVENT),
        Replayed { refused: 1.., .. } => Err(TOO_OLD),
        Replayed { replayed: 0, .. } => Err(NONE),
        Replayed { replayed, left, refused, .. } => {
            app.events.dead_letters_replayed(replayed);
            app.settle_letters(head.as_slice()).await;
            super::answer(&ReplayAnswer { success: true, replayed, left, refused })
        }
    }
}

async fn replay_all(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let before = in_redis_now(&app).await;
    let Replayed { replayed, left, refused, full } = in_redis(&app, async |letters| letters.replay_all().await).await?;
    app.events.dead_letters_replayed(replayed);
    settle_gone(&app, before).await;
    if full {
        let detail = format!(
            "{replayed} dead letters are back in the stream; now it is full, or Redis is: replay the others when the \
             workers have caught up"
        );
        return Err(Problem::told(StatusCode::SERVICE_UNAVAILABLE, detail));
    }
    super::answer(&ReplayAnswer { success: true, replayed, left, refused })
}

async fn delete(State(app): State<Arc<App>>, path: Result<Path<String>, PathRejection>) -> Result<Response, Problem> {
    let id = id(path)?;
    let head = head(&app, id).await;
    if !in_redis(&app, async |letters| letters.delete(id).await).await? {
        return Err(NONE);
    }
    app.events.dead_letters_deleted(1);
    app.settle_letters(head.as_slice()).await;
    super::answer(&DeleteAnswer { success: true, deleted: 1 })
}

async fn purge(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let before = in_redis_now(&app).await;
    let deleted = in_redis(&app, async |letters| letters.purge().await).await?;
    app.events.dead_letters_deleted(deleted);
    settle_gone(&app, before).await;
    super::answer(&DeleteAnswer { success: true, deleted })
}

/// Reads what is known of a letter before something is done with it; only where there is a PostgreSQL to tell.
async fn head(app: &App, id: StreamId) -> Option<Head> {
    app.stored.as_ref()?;
    let letter = in_redis(app, async |letters| letters.get(id).await).await.ok()??;
    Some(letter.head())
}

/// Notes in PostgreSQL which of these are no longer in Redis, as all of them were replayed or deleted.
async fn settle_gone(app: &App, before: Option<Vec<Head>>) {
    let after = in_redis_now(app).await;
    let (Some(before), Some(after)) = (before, after) else { return app.letters.forget().await };
    let here: HashSet<_> = after.iter().map(|head| head.id.as_str()).collect();
    let gone: Vec<Head> = before.into_iter().filter(|head| !here.contains(head.id.as_str())).collect();
    app.settle_letters(&gone).await;
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
        use penstock_core::stream::field::{CONSUMER, DATA, DELIVERIES, ERROR, ORIG_ID, REPO, SEQ, TYPE};
        let known = [TYPE, DATA, SEQ, ORIG_ID, DELIVERIES, ERROR, CONSUMER, REPO, "id"];
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
            repo: letter.field(REPO),
            cut_of: letter.cut_of,
            more: more.map(|(name, value)| (name.as_str(), value.as_str())).collect(),
        }
    }
}
