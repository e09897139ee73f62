//! All dead letters, of Redis and of PostgreSQL: listed without their data, grouped by reason, filtered, downloaded; and what is
//! done with many of them, or with those that only PostgreSQL has.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use fred::clients::Client;
use futures_util::stream;
use schemars::JsonSchema;
use serde::Serialize;

use super::api::{Access, Api};
use super::problem::Problem;
use crate::App;
use crate::dead_letters::{CUT, DeadLetters, Group, Head, Index, Kept, KeptState, Replayed, Source, Wanted};
use crate::stored::Stored;

const AT: &str = "/api/dead-letters";
const GROUPS: &str = "/api/dead-letters/groups";
const EXPORT: &str = "/api/dead-letters/export";
const REPLAY: &str = "/api/dead-letters/replay";
const KEPT: &str = "/api/dead-letters/postgres/{id}";
const REPLAY_KEPT: &str = "/api/dead-letters/postgres/{id}/replay";

/// How many letters a page has where nothing is said, and at most.
const PAGE: (usize, usize) = (100, 1000);

/// For how long one request replays or deletes; what is left is said.
const AT_WORK: Duration = Duration::from_secs(20);

pub(super) const NO_EVENT: Problem = Problem::new(
    StatusCode::CONFLICT,
    "this is not a stream event (commit, identity or account) and cannot be replayed",
);
pub(super) const TOO_OLD: Problem = Problem::new(
    StatusCode::GONE,
    "its event is older than worker.letterHold, the time tombstones of deletes are kept: a replay could bring back what was deleted \
     since, so it is refused",
);
pub(super) const FULL: Problem =
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the stream or Redis is full: replay once workers have caught up");
const NO_QUERY: Problem = Problem::new(StatusCode::BAD_REQUEST, "the query must be percent-encoded UTF-8");
const NO_LIMIT: Problem = Problem::new(StatusCode::BAD_REQUEST, "limit must be an integer from 1 to 1000");
const NO_CURSOR: Problem = Problem::new(StatusCode::BAD_REQUEST, "cursor must be the cursor of the previous page");
const NO_FILTER: Problem = Problem::new(
    StatusCode::BAD_REQUEST,
    "say which: give reason, type, did, text or source in the query, or all=true for every dead letter",
);
const NO_ID: Problem =
    Problem::new(StatusCode::BAD_REQUEST, "the id in the path must be the id of a dead letter that only postgres has");
const NONE: Problem = Problem::new(StatusCode::NOT_FOUND, "postgres has no dead letter with this id");
const NO_DATABASE: Problem = Problem::new(
    StatusCode::SERVICE_UNAVAILABLE,
    "the dashboard has no address of postgres: set postgres.url (DATABASE_URL) for it",
);
const POSTGRES_AWAY: Problem = Problem::new(
    StatusCode::SERVICE_UNAVAILABLE,
    "postgres does not answer, or was not migrated to this version: run penstock migrate",
);

/// A page of dead letters without their data, newest first.
#[derive(Debug, Serialize, JsonSchema)]
struct DeadLetterHeads<'i> {
    items: Vec<&'i Head>,
    /// What to send as `cursor` for the next page; null on the last one.
    cursor: Option<String>,
    /// How many letters match, on all pages.
    total: usize,
    /// False: there are more than are looked at, and the oldest are left out.
    complete: bool,
    /// Whether those that only PostgreSQL has are among them.
    postgres: KeptState,
}

/// Dead letters by reason, the reason of most first.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct DeadLetterGroups {
    /// At most 200.
    groups: Vec<Group>,
    /// How many reasons there are.
    reasons: usize,
    /// How many letters match.
    total: u64,
    /// How many of them only PostgreSQL has.
    only_in_postgres: u64,
    /// False: there are more than are looked at, and the oldest are left out.
    complete: bool,
    /// Whether those that only PostgreSQL has are among them.
    postgres: KeptState,
}

/// A dead letter with its data.
#[derive(Debug, Serialize, JsonSchema)]
struct WholeDeadLetter<'l> {
    #[serde(flatten)]
    head: Cow<'l, Head>,
    /// The entry's data, usually JSON; base64 for `raw`.
    data: Cow<'l, str>,
    /// The length of the data in bytes, where `data` is cut to 512 kB; the export has it whole.
    #[serde(rename = "cutOf", skip_serializing_if = "Option::is_none")]
    cut_of: Option<u64>,
}

/// What was done with dead letters.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
struct DeadLettersDone {
    success: bool,
    /// Put back into the stream.
    replayed: u64,
    /// Kept because they are not events.
    left: u64,
    /// Kept because their events are older than `worker.letterHold`: a replay could restore what was deleted since.
    refused: u64,
    /// Deleted; of those in Redis the copies in PostgreSQL stay, and are no longer listed.
    deleted: u64,
    /// Some that match are still to be done: the request ran out of time, or the stream or Redis is full.
    more: bool,
}

/// The parameters of a query.
struct Asked(Vec<(String, String)>);

/// Registers the routes.
pub(super) fn register(api: &mut Api) {
    api.get(AT, Access::Read, list)
        .says("Lists dead letters without their data, newest first, including those that only PostgreSQL has.")
        .query("limit", "integer", "maximum number of dead letters, 1 to 1000; default 100")
        .query("cursor", "string", "the cursor of the previous page")
        .filter()
        .answers::<DeadLetterHeads<'_>>("a page")
        .tells(400, "a parameter is not as it must be")
        .tells(503, "Redis is unavailable");
    api.get(GROUPS, Access::Read, groups)
        .says("Groups dead letters by reason: how many, since when, until when.")
        .filter()
        .answers::<DeadLetterGroups>("the groups")
        .tells(400, "a parameter is not as it must be")
        .tells(503, "Redis is unavailable");
    api.live(EXPORT, Access::Read, export)
        .says("Downloads dead letters with their data, one JSON object per line, newest first.")
        .filter()
        .answers_text("application/x-ndjson", "the letters; those that are gone by the time they are read are left out")
        .tells(400, "a parameter is not as it must be")
        .tells(503, "Redis is unavailable");
    api.post(REPLAY, Access::Admin, replay_matching)
        .says("Puts the dead letters that match back into the stream, oldest first.")
        .filter()
        .query("all", "boolean", "true: all of them, without a filter")
        .answers::<DeadLettersDone>("what was done")
        .tells(400, "a parameter is not as it must be, or there is none")
        .tells(503, "Redis is unavailable");
    api.delete(AT, Access::Admin, delete_matching)
        .says("Deletes the dead letters that match, those that only PostgreSQL has for good.")
        .filter()
        .query("all", "boolean", "true: all of them, without a filter")
        .answers::<DeadLettersDone>("what was done")
        .tells(400, "a parameter is not as it must be, or there is none")
        .tells(503, "Redis is unavailable");
    api.heavy(KEPT, Access::Read, one)
        .says("Returns one dead letter from PostgreSQL; long data is cut.")
        .answers::<WholeDeadLetter<'_>>("the dead letter")
        .tells(429, "too many were opened from this address within a second")
        .tells(404, "PostgreSQL has no such dead letter")
        .tells(503, "PostgreSQL is unavailable");
    api.post(REPLAY_KEPT, Access::Admin, replay_one)
        .says("Puts one dead letter that only PostgreSQL has back into the stream.")
        .answers::<DeadLettersDone>("it is back in the stream, and no longer listed")
        .tells(404, "PostgreSQL has no such dead letter")
        .tells(409, "it is no event of the stream")
        .tells(410, "its event is older than worker.letterHold: a replay could bring back what was deleted since")
        .tells(503, "Redis or PostgreSQL is unavailable, or the stream is full");
    api.delete(KEPT, Access::Admin, delete_one)
        .says("Deletes one dead letter from PostgreSQL.")
        .answers::<DeadLettersDone>("deleted")
        .tells(404, "PostgreSQL has no such dead letter")
        .tells(503, "PostgreSQL is unavailable");
}

type Pairs = Result<Query<Vec<(String, String)>>, QueryRejection>;

async fn list(State(app): State<Arc<App>>, asked: Pairs) -> Result<Response, Problem> {
    let asked = Asked::read(asked)?;
    let wanted = asked.wanted()?;
    let limit = asked.get("limit").map_or(Ok(PAGE.0), |limit| limit.parse().map_err(|_| NO_LIMIT))?;
    if !(1..=PAGE.1).contains(&limit) {
        return Err(NO_LIMIT);
    }
    let after = asked.get("cursor").map(|cursor| place(cursor).ok_or(NO_CURSOR)).transpose()?;
    let (_, index) = look(&app).await?;
    let total = index.matching(&wanted).count();
    let is_after = |head: &&Head| after.as_ref().is_none_or(|(at, id)| (head.at, head.id.as_str()) < (*at, id));
    let mut items: Vec<&Head> = index.matching(&wanted).filter(is_after).take(limit + 1).collect();
    let more = items.len() > limit;
    items.truncate(limit);
    let cursor = items.last().filter(|_| more).map(|head| format!("{}:{}", head.at, head.id));
    let page = DeadLetterHeads { items, cursor, total, complete: index.complete, postgres: index.postgres };
    super::answer(&page)
}

async fn groups(State(app): State<Arc<App>>, asked: Pairs) -> Result<Response, Problem> {
    let wanted = Asked::read(asked)?.wanted()?;
    let (_, index) = look(&app).await?;
    let (groups, reasons) = index.groups(&wanted);
    let (mut total, mut only_in_postgres) = (0, 0);
    for head in index.matching(&wanted) {
        total += 1;
        only_in_postgres += u64::from(head.source == Source::Postgres);
    }
    let (complete, postgres) = (index.complete, index.postgres);
    super::answer(&DeadLetterGroups { groups, reasons, total, only_in_postgres, complete, postgres })
}

async fn export(State(app): State<Arc<App>>, asked: Pairs) -> Result<Response, Problem> {
    let wanted = Asked::read(asked)?.wanted()?;
    let place = app.heavy.download()?;
    let (client, index) = look(&app).await?;
    let wanted: Vec<usize> = matching(&index, &wanted);
    // One letter is at hand at a time.
    let begun = (wanted.into_iter(), index, client, app, place);
    let lines = stream::unfold(begun, async |(mut wanted, index, client, app, place)| {
        loop {
            let head = index.heads.get(wanted.next()?)?;
            match line(&app, &client, head).await {
                Ok(Some(line)) => return Some((Ok(line), (wanted, index, client, app, place))),
                Ok(None) => {}
                Err(error) => return Some((Err(error), (Vec::new().into_iter(), index, client, app, place))),
            }
        }
    });
    let headers = [
        (header::CONTENT_TYPE, "application/x-ndjson"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"dead-letters.jsonl\""),
    ];
    Ok((headers, Body::from_stream(lines)).into_response())
}

/// Writes one letter; nothing where it is gone.
async fn line(app: &App, client: &Client, head: &Head) -> io::Result<Option<Bytes>> {
    let data = match head.source {
        Source::Redis => {
            let id = head.id.parse().map_err(io::Error::other)?;
            let letter = DeadLetters::new(client, &app.settings).get(id).await.map_err(io::Error::other)?;
            letter.map(|letter| letter.field(penstock_core::stream::field::DATA).unwrap_or_default().to_owned())
        }
        Source::Postgres => {
            let Some(stored) = &app.stored else { return Ok(None) };
            let kept = stored.letter(&head.id).await.map_err(io::Error::other)?;
            kept.map(|kept| String::from_utf8_lossy(&kept.data).into_owned())
        }
    };
    let Some(data) = data else { return Ok(None) };
    let mut line = serde_json::to_vec(&WholeDeadLetter { head: Cow::Borrowed(head), data: data.into(), cut_of: None })?;
    line.push(b'\n');
    Ok(Some(line.into()))
}

async fn replay_matching(State(app): State<Arc<App>>, asked: Pairs) -> Result<Response, Problem> {
    let wanted = Asked::read(asked)?.some()?;
    let (client, index) = look(&app).await?;
    let letters = DeadLetters::new(&client, &app.settings);
    let (began, mut done, mut settled) = (Instant::now(), DeadLettersDone::default(), Vec::new());
    for at in matching(&index, &wanted).into_iter().rev() {
        let Some(head) = index.heads.get(at) else { continue };
        if began.elapsed() > AT_WORK {
            done.more = true;
            break;
        }
        let replayed = match head.source {
            Source::Redis => match head.id.parse() {
                Ok(id) => in_redis(&app, letters.replay(id).await)?,
                Err(_) => continue,
            },
            Source::Postgres => match in_postgres(&app, stored(&app)?.letter(&head.id).await)? {
                Some(kept) => in_redis(&app, letters.restore(&kept).await)?,
                None => continue,
            },
        };
        done.replayed += replayed.replayed;
        done.left += replayed.left;
        done.refused += replayed.refused;
        if replayed.replayed > 0 {
            settled.push(head.clone());
        }
        if replayed.full {
            done.more = true;
            break;
        }
    }
    app.events.dead_letters_replayed(done.replayed);
    app.settle_letters(&settled).await;
    super::answer(&DeadLettersDone { success: true, ..done })
}

async fn delete_matching(State(app): State<Arc<App>>, asked: Pairs) -> Result<Response, Problem> {
    let wanted = Asked::read(asked)?.some()?;
    let (client, index) = look(&app).await?;
    let letters = DeadLetters::new(&client, &app.settings);
    let (began, mut done, mut settled) = (Instant::now(), DeadLettersDone::default(), Vec::new());
    for at in matching(&index, &wanted) {
        let Some(head) = index.heads.get(at) else { continue };
        if began.elapsed() > AT_WORK {
            done.more = true;
            break;
        }
        let deleted = match head.source {
            Source::Redis => match head.id.parse() {
                Ok(id) => in_redis(&app, letters.delete(id).await)?,
                Err(_) => continue,
            },
            Source::Postgres => in_postgres(&app, stored(&app)?.delete_letter(&head.id).await)?,
        };
        done.deleted += u64::from(deleted);
        if deleted && head.source == Source::Redis {
            settled.push(head.clone());
        }
    }
    app.events.dead_letters_deleted(done.deleted);
    app.settle_letters(&settled).await;
    super::answer(&DeadLettersDone { success: true, ..done })
}

async fn one(State(app): State<Arc<App>>, path: Result<Path<String>, PathRejection>) -> Result<Response, Problem> {
    let id = id(path)?;
    let kept = in_postgres(&app, stored(&app)?.look_at_letter(&id).await)?.ok_or(NONE)?;
    let cut_of = Some(kept.head.bytes).filter(|bytes| *bytes > CUT as u64);
    let mut data = String::from_utf8_lossy(&kept.data);
    if cut_of.is_some() {
        // What is left of a character that was cut through.
        data = data.trim_end_matches(char::REPLACEMENT_CHARACTER).to_owned().into();
    }
    super::answer(&WholeDeadLetter { head: Cow::Borrowed(&kept.head), data, cut_of })
}

async fn replay_one(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let kept = kept(&app, path).await?;
    let (client, _) = app.client_and_snapshot().ok_or(Problem::REDIS_AWAY)?;
    let replayed = in_redis(&app, DeadLetters::new(&client, &app.settings).restore(&kept).await)?;
    match replayed {
        Replayed { full: true, .. } => Err(FULL),
        Replayed { left: 1.., .. } => Err(NO_EVENT),
        Replayed { refused: 1.., .. } => Err(TOO_OLD),
        Replayed { replayed, .. } => {
            app.events.dead_letters_replayed(replayed);
            app.settle_letters(&[kept.head]).await;
            super::answer(&DeadLettersDone { success: true, replayed, ..DeadLettersDone::default() })
        }
    }
}

async fn delete_one(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let id = path.map_err(|_| NO_ID)?.0;
    if !in_postgres(&app, stored(&app)?.delete_letter(&id).await)? {
        return Err(NONE);
    }
    app.events.dead_letters_deleted(1);
    app.letters.forget().await;
    super::answer(&DeadLettersDone { success: true, deleted: 1, ..DeadLettersDone::default() })
}

/// Reads one letter of PostgreSQL.
async fn kept(app: &App, path: Result<Path<String>, PathRejection>) -> Result<Kept, Problem> {
    let id = id(path)?;
    in_postgres(app, stored(app)?.letter(&id).await)?.ok_or(NONE)
}

/// Reads an ID that PostgreSQL can be asked for.
fn id(path: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    path.ok().map(|Path(id)| id).filter(|id| !id.contains('\0')).ok_or(NO_ID)
}

async fn look(app: &App) -> Result<(Client, Arc<Index>), Problem> {
    let (client, _) = app.client_and_snapshot().ok_or(Problem::REDIS_AWAY)?;
    let index = app.letters.look(&client, &app.settings, app.stored.as_ref(), &app.events).await;
    Ok((client, in_redis(app, index)?))
}

/// Returns what is in Redis, where that is known and there is a PostgreSQL to tell what becomes of it.
pub(super) async fn in_redis_now(app: &App) -> Option<Vec<Head>> {
    app.stored.as_ref()?;
    app.letters.forget().await;
    let (_, index) = look(app).await.ok()?;
    Some(index.heads.iter().filter(|head| head.source == Source::Redis).cloned().collect())
}

/// Where in the index the letters are that are wanted, each once.
fn matching(index: &Index, wanted: &Wanted) -> Vec<usize> {
    let here = index.heads.iter().enumerate().filter(|(_, head)| wanted.lets_through(head));
    let mut seen = HashSet::new();
    here.filter(|(_, head)| seen.insert((head.source, head.id.as_str()))).map(|(at, _)| at).collect()
}

fn stored(app: &App) -> Result<&Stored, Problem> {
    app.stored.as_ref().ok_or(NO_DATABASE)
}

fn in_redis<T>(app: &App, answer: Result<T, fred::error::Error>) -> Result<T, Problem> {
    answer.map_err(|error| super::refused(&app.events, "dead letters", &error))
}

fn in_postgres<T>(app: &App, answer: sqlx::Result<T>) -> Result<T, Problem> {
    answer.map_err(|error| {
        app.events.postgres_refused("dead letters", &error);
        POSTGRES_AWAY
    })
}

/// Reads a cursor: when the last letter of a page was added, and its ID.
fn place(cursor: &str) -> Option<(u64, &str)> {
    let (at, id) = cursor.split_once(':')?;
    Some((at.parse().ok()?, id))
}

// === impl Asked ===

impl Asked {
    fn read(asked: Pairs) -> Result<Self, Problem> {
        asked.map(|Query(pairs)| Self(pairs)).map_err(|_| NO_QUERY)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    fn wanted(&self) -> Result<Wanted, Problem> {
        let pairs = self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        Wanted::read(pairs).map_err(|error| Problem::told(StatusCode::BAD_REQUEST, error.to_string()))
    }

    /// Which letters something is done with: nobody does it with all of them by leaving out a word.
    fn some(&self) -> Result<Wanted, Problem> {
        let wanted = self.wanted()?;
        if wanted.is_open() && self.get("all") != Some("true") { Err(NO_FILTER) } else { Ok(wanted) }
    }
}
