//! Which projections are on, as the settings and the database say.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use penstock_core::settings::{Projection, Projections};
use sqlx::PgConnection;
use sqlx::postgres::PgBindIterExt;

/// The projections that are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Active(u8);

/// Knows which projections are on; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Projector {
    asked: Arc<Projections>,
    /// What was found last; [`UNKNOWN`] at first.
    found: Arc<AtomicU8>,
}

const UNKNOWN: u8 = u8::MAX;

/// The tables of projections and the columns that are written or read, and what of ours they need besides.
const TABLES: [(Projection, &str, &[&str]); 4] = [
    (
        Projection::Notifications,
        "notifications",
        &[
            "uri",
            "recipient_did",
            "author_did",
            "reason",
            "reason_subject",
            "cid",
            "is_read",
            "created_at",
            "indexed_at",
        ],
    ),
    (Projection::ThreadContexts, "thread_contexts", &["post_uri", "root_author_like_uri", "updated_at"]),
    (
        Projection::PostViewerStates,
        "post_viewer_states",
        &[
            "post_uri",
            "viewer_did",
            "like_uri",
            "repost_uri",
            "bookmarked",
            "thread_muted",
            "reply_disabled",
            "embedding_disabled",
            "pinned",
            "updated_at",
        ],
    ),
    (Projection::LabelEvents, "label_events", &["label_uri", "action"]),
];

const COLUMNS: &str = "\
SELECT t.name, ARRAY(SELECT a.attname::text FROM pg_attribute AS a
    WHERE a.attrelid = to_regclass(t.name) AND a.attnum > 0 AND NOT a.attisdropped)
  FROM unnest($1::text[]) AS t (name)";

// === impl Active ===

impl Active {
    /// None at all.
    pub(crate) const NONE: Self = Self(0);

    fn bit(projection: Projection) -> u8 {
        1 << projection as u8
    }

    /// Returns whether a projection is on.
    pub(crate) fn has(self, projection: Projection) -> bool {
        self.0 & Self::bit(projection) != 0
    }

    fn with(self, projection: Projection) -> Self {
        Self(self.0 | Self::bit(projection))
    }

    /// Returns whether a projection is on that depends on which posts exist.
    pub(crate) fn depends_on_posts(self) -> bool {
        self.has(Projection::Notifications) || self.has(Projection::ThreadContexts)
    }
}

// === impl Projector ===

impl Projector {
    pub(crate) fn new(asked: Projections) -> Self {
        Self { asked: Arc::new(asked), found: Arc::new(AtomicU8::new(UNKNOWN)) }
    }

    /// Returns what is on, and asks the database if that is not known yet.
    pub(crate) async fn active(&self, conn: &mut PgConnection) -> sqlx::Result<Active> {
        match self.found.load(Ordering::Relaxed) {
            UNKNOWN => self.refresh(conn).await,
            found => Ok(Active(found)),
        }
    }

    /// Asks the database again: tables may have been created or dropped.
    pub(crate) async fn refresh(&self, conn: &mut PgConnection) -> sqlx::Result<Active> {
        let active = match &*self.asked {
            Projections::Only(named) => named.iter().fold(Active::NONE, |active, named| active.with(*named)),
            Projections::Auto => {
                let lacking = lacking(conn).await?;
                let there = TABLES.iter().filter(|(_, table, _)| !lacking.iter().any(|(of, _)| of == table));
                there.fold(Active::NONE.with(Projection::Cache), |active, (projection, ..)| active.with(*projection))
            }
        };
        self.found.store(active.0, Ordering::Relaxed);
        Ok(active)
    }

    pub(crate) fn asked(&self) -> &Projections {
        &self.asked
    }
}

/// Names what the projections lack that were asked for by name.
pub(crate) async fn missing(conn: &mut PgConnection, asked: &Projections) -> sqlx::Result<Vec<String>> {
    let lacking = lacking(conn).await?;
    let named = |table: &str| TABLES.iter().any(|(projection, of, _)| *of == table && asked.names(*projection));
    Ok(lacking.into_iter().filter(|(table, _)| named(table)).map(|(_, what)| what).collect())
}

/// Finds what the tables of projections lack: each time the table and what it is.
async fn lacking(conn: &mut PgConnection) -> sqlx::Result<Vec<(&'static str, String)>> {
    let rows: Vec<(String, Vec<String>)> =
        sqlx::query_as(COLUMNS).bind(TABLES.iter().map(|(_, table, _)| *table).bind_iter()).fetch_all(conn).await?;
    let mut lacking = Vec::new();
    for (_, table, columns) in TABLES {
        let found = rows.iter().find(|(name, _)| name == table).map_or(&[][..], |(_, found)| found);
        if found.is_empty() {
            lacking.push((table, format!("table {table}")));
            continue;
        }
        let absent = columns.iter().filter(|column| !found.iter().any(|found| found == *column));
        lacking.extend(absent.map(|column| (table, format!("column {table}.{column}"))));
    }
    Ok(lacking)
}
