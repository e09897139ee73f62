//! Rows in PostgreSQL that a person asks for, over a few connections of their own: one that hangs holds up nobody else.

use std::time::Duration;

use penstock_core::settings::Postgres;
use penstock_lookup::tables::{GENERIC, PROFILE, Table};
use penstock_postgres::schema::qualifier;
use penstock_postgres::{Address, Pool};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection};
use tokio::time::timeout;

/// How many connections one process holds at most.
const CONNECTIONS: u32 = 3;

/// How long an answer may take, and a connection for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a connection is used: a server that became a replica, or that was replaced, is left after it.
const LIFETIME: Duration = Duration::from_secs(60);

/// How long a connection is kept that nobody uses.
const IDLE: Duration = Duration::from_secs(30);

/// The largest record that is shown, in bytes.
const LARGEST: i32 = 512 * 1024;

/// The connections. Statements are not kept prepared: their plans would outlive the tables that they were made for. Each is a
/// transaction: a pooler may lend another session for what comes after.
#[derive(Clone, Debug)]
pub(crate) struct Stored(pub(crate) Pool);

/// The URI of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecordUri {
    pub(crate) did: String,
    pub(crate) collection: String,
    pub(crate) rkey: String,
}

/// A row as it stands.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) table: &'static str,
    /// The row as JSON; none where it is too large to be shown.
    pub(crate) row: Option<String>,
}

// === impl Stored ===

impl Stored {
    /// Makes the connections when they are asked for; none where there is no address.
    pub(crate) fn new(postgres: &Postgres) -> Option<Self> {
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(PATIENCE)
            .max_lifetime(LIFETIME)
            .idle_timeout(IDLE);
        Pool::lazy(Address::of(postgres)?, pool, |_| true).ok().map(Self)
    }

    /// Reads the row that was made of a record, wherever it stands.
    pub(crate) async fn record(&self, uri: &RecordUri) -> sqlx::Result<Option<Found>> {
        let own = match Table::of(&uri.collection) {
            Some(table) => Some((table.name, table.key, table.key_of(&uri.did, &uri.rkey))),
            None => (uri.collection == PROFILE).then(|| ("users", "did", uri.did.clone())),
        };
        if let Some((table, column, key)) = own
            && let Some(found) = self.row(table, column, &key).await?
        {
            return Ok(Some(found));
        }
        if let Some(found) = self.row(GENERIC, "uri", &uri.to_string()).await? {
            return Ok(Some(found));
        }
        let misfit = AssertSqlSafe(format!("{} AND kept.did = $3", select("penstock.records", "uri")));
        self.ask("penstock.records", sqlx::query_as(misfit).bind(uri.to_string()).bind(LARGEST).bind(&uri.did)).await
    }

    async fn row(&self, table: &'static str, column: &str, key: &str) -> sqlx::Result<Option<Found>> {
        let found = self.in_time(async {
            let mut connection = self.0.acquire().await?;
            let mut transaction = connection.begin().await?;
            let schema = qualifier(&mut transaction).await?;
            let statement = AssertSqlSafe(select(&format!("{schema}.{table}"), column));
            let query = sqlx::query_as(statement).bind(key).bind(LARGEST).persistent(false);
            let found: Option<(Option<String>,)> = query.fetch_optional(&mut *transaction).await?;
            transaction.rollback().await?;
            Ok(found)
        });
        Ok(found.await?.map(|(row,)| Found { table, row }))
    }

    async fn ask(
        &self,
        table: &'static str,
        query: sqlx::query::QueryAs<'_, sqlx::Postgres, (Option<String>,), sqlx::postgres::PgArguments>,
    ) -> sqlx::Result<Option<Found>> {
        let found = self.in_time(async {
            let mut connection = self.0.acquire().await?;
            let mut transaction = connection.begin().await?;
            let found = query.persistent(false).fetch_optional(&mut *transaction).await?;
            transaction.rollback().await?;
            Ok(found)
        });
        let found = found.await?;
        Ok(found.map(|(row,)| Found { table, row }))
    }

    /// Waits for an answer no longer than a person does.
    pub(crate) async fn in_time<T>(&self, answer: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
        timeout(PATIENCE, answer).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }
}

/// Writes a statement out of names of [`penstock_lookup::tables`] only, with their schema.
fn select(table: &str, column: &str) -> String {
    format!(
        "SELECT CASE WHEN octet_length(written.json) <= $2 THEN written.json END \
           FROM {table} AS kept, LATERAL (SELECT to_jsonb(kept)::text AS json) AS written WHERE kept.{column} = $1"
    )
}

// === impl RecordUri ===

impl RecordUri {
    /// Reads `at://did/collection/rkey`.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("at://")?.split('/');
        let mut part = || parts.next().filter(|part| !part.is_empty()).map(str::to_owned);
        let uri = Self { did: part()?, collection: part()?, rkey: part()? };
        let fits = uri.did.starts_with("did:") && uri.collection.contains('.');
        // PostgreSQL takes no NUL.
        (fits && parts.next().is_none() && text.len() <= 8192 && !text.contains(char::is_control)).then_some(uri)
    }

    /// Returns where a person can look at it outside of here: what it is called, and its address.
    pub(crate) fn links(&self) -> Vec<(&'static str, String)> {
        let Self { did, collection, rkey } = self;
        let escaped = |text: &str| -> String {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte);
            text.bytes()
                .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
                .collect()
        };
        let (account, key) = (escaped(did), escaped(rkey));
        let bluesky = match collection.as_str() {
            "app.bsky.feed.post" => Some(format!("https://bsky.app/profile/{account}/post/{key}")),
            "app.bsky.feed.generator" => Some(format!("https://bsky.app/profile/{account}/feed/{key}")),
            "app.bsky.graph.list" => Some(format!("https://bsky.app/profile/{account}/lists/{key}")),
            "app.bsky.actor.profile" => Some(format!("https://bsky.app/profile/{account}")),
            _ => None,
        };
        let repo = format!("https://pdsls.dev/at://{account}/{}/{key}", escaped(collection));
        bluesky.map(|href| ("Bluesky", href)).into_iter().chain([("PDSls", repo)]).collect()
    }
}

impl std::fmt::Display for RecordUri {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "at://{}/{}/{}", self.did, self.collection, self.rkey)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_has_three_parts_and_is_written_as_it_was_read() {
        for text in ["at://did:plc:a/app.bsky.feed.post/3k", "at://did:web:a.test/org.example.note/a~b:c"] {
            assert_eq!(RecordUri::read(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "at://did:plc:a",
            "at://did:plc:a/app.bsky.feed.post",
            "at://did:plc:a/app.bsky.feed.post/",
            "at://did:plc:a/app.bsky.feed.post/3k/x",
            "at://alice.test/app.bsky.feed.post/3k",
            "at://did:plc:a/posts/3k",
            "https://did:plc:a/app.bsky.feed.post/3k",
            "at://did:plc:a/app.bsky.feed.post/3\0k",
        ] {
            assert_eq!(RecordUri::read(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_link_leads_nowhere_else_whatever_stands_in_the_uri() {
        let uri = RecordUri::read("at://did:plc:a/app.bsky.feed.post/3k?x=\"#<").unwrap();
        let links = uri.links();
        assert_eq!(
            links,
            [
                ("Bluesky", "https://bsky.app/profile/did:plc:a/post/3k%3Fx%3D%22%23%3C".to_owned()),
                ("PDSls", "https://pdsls.dev/at://did:plc:a/app.bsky.feed.post/3k%3Fx%3D%22%23%3C".to_owned()),
            ]
        );
        let like = RecordUri::read("at://did:plc:a/app.bsky.feed.like/3k").unwrap();
        assert_eq!(like.links().len(), 1);
    }
}
