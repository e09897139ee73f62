//! Their workers: what they hold when they end stays pending under names that never come back.
//!
//! Each writes a handful of tables the way the original does. The Python one makes a transaction of an op, in which a
//! post's row of counts is inserted with it; the TypeScript one commits every statement by itself, and claims what
//! nobody gave a sign of. Both add to counts whatever the insert before did, and look at no revision.

use std::sync::Arc;

use serde_json::Value;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::player::{AGAIN, CLAIM_IDLE, Player, Theirs};
use super::resp::{Redis, Reply};
use crate::model;

/// How many read at once under names of their own.
const PIPELINES: usize = 5;

/// How often the TypeScript one reads between two looks for what is stuck.
const READS: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Python,
    TypeScript,
}

struct Pipeline {
    theirs: Arc<Theirs>,
    kind: Kind,
    name: String,
}

/// A record that is created or updated.
struct Record<'a> {
    uri: String,
    did: &'a str,
    cid: &'a str,
    value: Value,
}

pub(crate) fn start(theirs: &Arc<Theirs>, kind: Kind) -> Player {
    let theirs = Arc::clone(theirs);
    let name = match kind {
        Kind::Python => "the python worker",
        Kind::TypeScript => "the typescript workers",
    };
    Player::start(name, move |stop| async move {
        let process = rand::random::<u32>();
        let pipeline = |n| Pipeline { theirs: Arc::clone(&theirs), kind, name: format!("{kind:?}-{process:x}-{n}") };
        let mut pipelines = JoinSet::new();
        for n in 0..PIPELINES {
            let pipeline = pipeline(n);
            pipelines.spawn(async move { pipeline.run().await });
        }
        // It closes its connections and stops its loop, wherever that is.
        tokio::select! {
            () = stop.cancelled() => {}
            ended = pipelines.join_next() => ended.unwrap().unwrap(),
        }
    })
}

// === impl Pipeline ===

impl Pipeline {
    async fn run(&self) {
        // Of its own, and no pool's: what is open in it is undone when it is dropped.
        let mut db = PgConnection::connect(&self.theirs.database).await.unwrap();
        loop {
            let mut redis = self.theirs.redis().await;
            let ended = self.read(&mut redis, &mut db).await;
            assert!(ended.is_err());
            sleep(AGAIN).await;
        }
    }

    async fn read(&self, redis: &mut Redis, db: &mut PgConnection) -> std::io::Result<()> {
        let (stream, group) = (self.theirs.keys.stream(), self.theirs.keys.group());
        // It may be there.
        redis.call(&["XGROUP", "CREATE", stream, group, "0", "MKSTREAM"]).await?;
        let count = if self.kind == Kind::Python { "10" } else { "50" };
        let read = ["XREADGROUP", "GROUP", group, &self.name, "COUNT", count, "BLOCK", "100", "STREAMS", stream, ">"];
        for round in 1.. {
            let mut entries = redis.call(&read).await?.read();
            if self.kind == Kind::TypeScript && round % READS == 0 {
                entries.extend(self.claim(redis).await?);
            }
            for (id, fields) in entries {
                self.theirs.ledger.lock().unwrap().handled.insert(id.clone());
                if let [_, kind, _, data, ..] = &fields[..]
                    && let Ok(data) = serde_json::from_str(data)
                {
                    self.process(db, kind, &data).await;
                }
                redis.call(&["XACK", stream, group, &id]).await?;
            }
        }
        Ok(())
    }

    async fn claim(&self, redis: &mut Redis) -> std::io::Result<Vec<(String, Vec<String>)>> {
        let (stream, group) = (self.theirs.keys.stream(), self.theirs.keys.group());
        let idle = CLAIM_IDLE.as_millis().to_string();
        let pending = redis.call(&["XPENDING", stream, group, "-", "+", "100"]).await?;
        let mut claimed = Vec::new();
        for entry in pending.array() {
            let [Reply::Text(id), _, Reply::Integer(unseen), ..] = entry.array() else { continue };
            if u128::try_from(*unseen).is_ok_and(|unseen| unseen > CLAIM_IDLE.as_millis()) {
                claimed.extend(redis.call(&["XCLAIM", stream, group, &self.name, &idle, id]).await?.entries());
            }
        }
        Ok(claimed)
    }

    async fn process(&self, db: &mut PgConnection, kind: &str, data: &Value) {
        // A failure is logged, and the entry is acknowledged all the same.
        match kind {
            "identity" => {
                if let (Some(did), Some(handle)) = (data["did"].as_str(), data["handle"].as_str()) {
                    let set = "INSERT INTO users (did, handle) VALUES ($1, $2)
                        ON CONFLICT (did) DO UPDATE SET handle = excluded.handle";
                    let _ = sqlx::query(set).bind(did).bind(handle).execute(&mut *db).await;
                }
            }
            "commit" => {
                for op in data["ops"].as_array().into_iter().flatten() {
                    let _ = match self.kind {
                        Kind::Python => self.transact(db, &data["repo"], op).await,
                        Kind::TypeScript => self.apply(db, &data["repo"], op).await,
                    };
                }
            }
            _ => {}
        }
    }

    async fn transact(&self, db: &mut PgConnection, repo: &Value, op: &Value) -> sqlx::Result<()> {
        let mut transaction = db.begin().await?;
        self.apply(&mut transaction, repo, op).await?;
        transaction.commit().await
    }

    async fn apply(&self, db: &mut PgConnection, repo: &Value, op: &Value) -> sqlx::Result<()> {
        let (Some(did), Some(path)) = (repo.as_str(), op["path"].as_str()) else { return Ok(()) };
        let uri = format!("at://{did}/{path}");
        if op["action"] == "delete" {
            return self.delete(db, &uri, path.split('/').next().unwrap_or_default()).await;
        }
        let value = model::without_nul(&op["record"]);
        let record = Record { uri, did, cid: op["cid"].as_str().unwrap_or_default(), value };
        match record.value["$type"].as_str() {
            Some("app.bsky.feed.post") => self.post(db, &record).await,
            Some("app.bsky.feed.like") => self.point(db, &record, "likes", "like_count").await,
            Some("app.bsky.feed.repost") => self.point(db, &record, "reposts", "repost_count").await,
            Some("app.bsky.graph.follow") => relate(db, &record, "follows", "follower_did", "following_did").await,
            Some("app.bsky.graph.block") => relate(db, &record, "blocks", "blocker_did", "blocked_did").await,
            _ => Ok(()),
        }
    }

    async fn post(&self, db: &mut PgConnection, record: &Record<'_>) -> sqlx::Result<()> {
        ensure_user(db, record.did).await?;
        let Record { uri, did, cid, value } = record;
        let (parent, root) = (value["reply"]["parent"]["uri"].as_str(), value["reply"]["root"]["uri"].as_str());
        let insert = "INSERT INTO posts (uri, cid, author_did, text, parent_uri, root_uri, embed, facets, created_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, coalesce($9::text::timestamp, now())) ON CONFLICT (uri) DO NOTHING";
        let insert = sqlx::query(insert).bind(uri).bind(cid).bind(did).bind(value["text"].as_str().unwrap_or_default());
        let insert = insert.bind(parent).bind(root).bind(value.get("embed")).bind(value.get("facets"));
        insert.bind(record.created_at()).execute(&mut *db).await?;
        let counts = "INSERT INTO post_aggregations (post_uri) VALUES ($1)";
        let counted = sqlx::query(counts).bind(uri).execute(&mut *db).await;
        if self.kind == Kind::Python {
            // A row that stands fails the transaction.
            counted?;
        } else if let Some(parent) = parent {
            self.count(db, parent, "reply_count", 1).await?;
        }
        self.feed_item(db, record, uri, "post").await?;
        if self.kind == Kind::TypeScript && value["embed"]["$type"] == "app.bsky.embed.record" {
            let quoted = &value["embed"]["record"];
            let quote = "INSERT INTO quotes (uri, cid, post_uri, quoted_uri, quoted_cid, created_at)
                VALUES ($1 || '#quote', $2, $1, $3, $4, coalesce($5::text::timestamp, now())) ON CONFLICT DO NOTHING";
            let quote = sqlx::query(quote).bind(uri).bind(cid).bind(quoted["uri"].as_str());
            quote.bind(quoted["cid"].as_str()).bind(record.created_at()).execute(&mut *db).await?;
            self.count(db, quoted["uri"].as_str().unwrap_or_default(), "quote_count", 1).await?;
        }
        Ok(())
    }

    /// A like or a repost.
    async fn point(&self, db: &mut PgConnection, record: &Record<'_>, table: &str, column: &str) -> sqlx::Result<()> {
        ensure_user(db, record.did).await?;
        let Some(post) = record.value["subject"]["uri"].as_str() else { return Ok(()) };
        let key = if self.kind == Kind::Python { "(uri)" } else { "" };
        let insert = format!(
            "INSERT INTO {table} (uri, user_did, post_uri, created_at)
             VALUES ($1, $2, $3, coalesce($4::text::timestamp, now())) ON CONFLICT {key} DO NOTHING"
        );
        let insert = sqlx::query(AssertSqlSafe(insert)).bind(&record.uri).bind(record.did).bind(post);
        insert.bind(record.created_at()).execute(&mut *db).await?;
        self.count(db, post, column, 1).await?;
        if table == "reposts" {
            self.feed_item(db, record, post, "repost").await?;
        }
        Ok(())
    }

    async fn feed_item(&self, db: &mut PgConnection, record: &Record<'_>, post: &str, kind: &str) -> sqlx::Result<()> {
        let conflict = if self.kind == Kind::Python { "ON CONFLICT (uri) DO NOTHING" } else { "" };
        let insert = format!(
            "INSERT INTO feed_items (uri, post_uri, originator_did, type, sort_at, cid, created_at)
             VALUES ($1, $2, $3, $4, coalesce($5::text::timestamp, now()), $6, coalesce($5::text::timestamp, now()))
             {conflict}"
        );
        let insert = sqlx::query(AssertSqlSafe(insert)).bind(&record.uri).bind(post).bind(record.did).bind(kind);
        insert.bind(record.created_at()).bind(record.cid).execute(db).await.map(drop)
    }

    async fn count(&self, db: &mut PgConnection, post: &str, column: &str, by: i32) -> sqlx::Result<()> {
        if self.kind == Kind::Python {
            let update =
                format!("UPDATE post_aggregations SET {column} = greatest({column} + $2, 0) WHERE post_uri = $1");
            return sqlx::query(AssertSqlSafe(update)).bind(post).bind(by).execute(db).await.map(drop);
        }
        // It reads, and writes what it has read and one more.
        let look = format!("SELECT {column} FROM post_aggregations WHERE post_uri = $1");
        let found: Option<i32> = sqlx::query_scalar(AssertSqlSafe(look)).bind(post).fetch_optional(&mut *db).await?;
        let Some(found) = found else { return Ok(()) };
        let update = format!("UPDATE post_aggregations SET {column} = $2 WHERE post_uri = $1");
        let update = sqlx::query(AssertSqlSafe(update)).bind(post).bind(found + by);
        update.execute(db).await.map(drop)
    }

    async fn delete(&self, db: &mut PgConnection, uri: &str, collection: &str) -> sqlx::Result<()> {
        let (table, column) = match collection {
            "app.bsky.feed.post" => ("posts", None),
            "app.bsky.feed.like" => ("likes", Some("like_count")),
            "app.bsky.feed.repost" => ("reposts", Some("repost_count")),
            "app.bsky.graph.follow" => ("follows", None),
            "app.bsky.graph.block" => ("blocks", None),
            _ => return Ok(()),
        };
        let mut post = None;
        if column.is_some() {
            let look = format!("SELECT post_uri FROM {table} WHERE uri = $1");
            post = sqlx::query_scalar::<_, String>(AssertSqlSafe(look)).bind(uri).fetch_optional(&mut *db).await?;
            if post.is_none() {
                return Ok(());
            }
        }
        let delete = format!("DELETE FROM {table} WHERE uri = $1");
        sqlx::query(AssertSqlSafe(delete)).bind(uri).execute(&mut *db).await?;
        if matches!(table, "posts" | "reposts") {
            sqlx::query("DELETE FROM feed_items WHERE uri = $1").bind(uri).execute(&mut *db).await?;
        }
        match (post, column) {
            (Some(post), Some(column)) => self.count(db, &post, column, -1).await,
            _ => Ok(()),
        }
    }
}

/// A follow or a block.
async fn relate(db: &mut PgConnection, record: &Record<'_>, table: &str, by: &str, of: &str) -> sqlx::Result<()> {
    let Some(subject) = record.value["subject"].as_str() else { return Ok(()) };
    ensure_user(db, record.did).await?;
    ensure_user(db, subject).await?;
    let insert = format!(
        "INSERT INTO {table} (uri, {by}, {of}, created_at)
         VALUES ($1, $2, $3, coalesce($4::text::timestamp, now())) ON CONFLICT (uri) DO NOTHING"
    );
    let insert = sqlx::query(AssertSqlSafe(insert)).bind(&record.uri).bind(record.did).bind(subject);
    insert.bind(record.created_at()).execute(db).await.map(drop)
}

async fn ensure_user(db: &mut PgConnection, did: &str) -> sqlx::Result<()> {
    let found: Option<String> =
        sqlx::query_scalar("SELECT did FROM users WHERE did = $1").bind(did).fetch_optional(&mut *db).await?;
    if found.is_none() {
        let insert = "INSERT INTO users (did, handle) VALUES ($1, 'handle.invalid') ON CONFLICT (did) DO NOTHING";
        sqlx::query(insert).bind(did).execute(db).await?;
    }
    Ok(())
}

// === impl Record ===

impl Record<'_> {
    /// When the record says that it was made, where theirs finds it: what the Python consumer wrote has another name for it.
    fn created_at(&self) -> Option<String> {
        model::timestamp(&self.value["createdAt"]).as_str().map(str::to_owned)
    }
}
