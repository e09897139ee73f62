//! The indexes that the AppView's schema tool wants, on tables that Penstock 0.1 made with others, and those that statements
//! need. All are built and dropped beside whoever reads and writes.

use sqlx::PgConnection;
use tracing::info;

use super::database::Database;
use super::locks::{Step, Wait, concurrently, is_locked, patiently};
use super::{needed, session};

/// What was only called otherwise, and constraints that take an index over.
const RENAMED: &str = include_str!("indexes.sql");

/// Indexes in place of others, on a table that still has the first of them.
struct Remade {
    table: &'static str,
    /// Names, and what they are on.
    made: &'static [(&'static str, &'static str)],
    dropped: &'static [&'static str],
}

const REMADE: [Remade; 18] = [
    Remade {
        table: "posts",
        made: &[
            ("idx_posts_author_did", "(author_did)"),
            ("idx_posts_created_at_author", "(created_at DESC NULLS LAST, author_did)"),
            ("idx_posts_commit_seq_time", "(commit_seq, commit_time)"),
        ],
        dropped: &["idx_posts_author_did_created_at", "idx_posts_cid", "idx_posts_created_at"],
    },
    Remade {
        table: "feed_items",
        made: &[
            ("idx_feed_items_originator", "(originator_did)"),
            ("idx_feed_items_type", "(type)"),
            ("idx_feed_items_originator_sort", "(originator_did, sort_at DESC NULLS LAST)"),
        ],
        dropped: &["idx_feed_items_originator_did_sort_at", "idx_feed_items_type_sort_at", "idx_feed_items_created_at"],
    },
    Remade {
        table: "likes",
        made: &[("idx_likes_user_did", "(user_did)"), ("idx_likes_post_uri", "(post_uri)")],
        dropped: &["idx_likes_post_uri_created_at", "idx_likes_user_did_created_at"],
    },
    Remade {
        table: "reposts",
        made: &[("idx_reposts_user_did", "(user_did)"), ("idx_reposts_post_uri", "(post_uri)")],
        dropped: &["idx_reposts_post_uri_created_at", "idx_reposts_user_did_created_at"],
    },
    Remade {
        table: "bookmarks",
        made: &[("idx_bookmarks_user_did", "(user_did)")],
        dropped: &["idx_bookmarks_user_did_created_at"],
    },
    Remade {
        table: "follows",
        made: &[("idx_follows_follower", "(follower_did)"), ("idx_follows_following", "(following_did)")],
        dropped: &["idx_follows_following_did_created_at", "idx_follows_follower_did_created_at"],
    },
    Remade {
        table: "blocks",
        made: &[("idx_blocks_blocker", "(blocker_did)"), ("idx_blocks_blocked", "(blocked_did)")],
        dropped: &["idx_blocks_blocked_did_created_at", "idx_blocks_blocker_did_created_at"],
    },
    Remade { table: "lists", made: &[("idx_lists_indexed_at", "(indexed_at)")], dropped: &["idx_lists_created_at"] },
    Remade {
        table: "list_items",
        made: &[("idx_list_items_list", "(list_uri)")],
        dropped: &["idx_list_items_list_uri_created_at"],
    },
    Remade {
        table: "list_blocks",
        made: &[("idx_list_blocks_blocker", "(blocker_did)")],
        dropped: &["idx_list_blocks_blocker_did_created_at"],
    },
    Remade {
        table: "feed_generators",
        made: &[("idx_feed_generators_indexed_at", "(indexed_at)")],
        dropped: &["idx_feed_generators_created_at"],
    },
    Remade {
        table: "starter_packs",
        made: &[("idx_starter_packs_indexed_at", "(indexed_at)")],
        dropped: &["idx_starter_packs_created_at"],
    },
    Remade {
        table: "labeler_services",
        made: &[("idx_labeler_services_indexed_at", "(indexed_at)")],
        dropped: &["idx_labeler_services_created_at"],
    },
    Remade {
        table: "labels",
        made: &[("idx_labels_subject_val", "(subject, val)")],
        dropped: &["idx_labels_created_at"],
    },
    Remade {
        table: "verifications",
        made: &[("idx_verifications_subject", "(subject_did)")],
        dropped: &["idx_verifications_created_at"],
    },
    Remade {
        table: "generic_records",
        made: &[("idx_generic_records_author", "(author_did)")],
        dropped: &["idx_generic_records_author_did_record_type"],
    },
    Remade {
        table: "quotes",
        made: &[("idx_quotes_post", "(post_uri)"), ("idx_quotes_quoted", "(quoted_uri)")],
        dropped: &["idx_quotes_quoted_uri_created_at", "idx_quotes_created_at"],
    },
    Remade {
        table: "notifications",
        made: &[
            ("idx_notifications_recipient", "(recipient_did)"),
            ("idx_notifications_recipient_read", "(recipient_did, is_read)"),
            ("idx_notifications_recipient_created", "(recipient_did, created_at DESC NULLS LAST)"),
            ("idx_notifications_indexed_at", "(indexed_at)"),
        ],
        dropped: &[
            "idx_notifications_recipient_did_created_at",
            "idx_notifications_author_did",
            "idx_notifications_reason_subject",
            "idx_notifications_unread",
        ],
    },
];

/// In 0.1 their indexes had only the rows above 0; the tool compares names, not predicates.
const COUNTED: [&str; 5] = ["like_count", "repost_count", "reply_count", "bookmark_count", "quote_count"];

/// Lists those tables, each with the index that tells of an older version, and how many take its place.
pub(super) fn remade() -> impl Iterator<Item = (&'static str, &'static str, usize)> {
    REMADE.into_iter().filter_map(|Remade { table, made, dropped }| Some((table, *dropped.first()?, made.len())))
}

/// Gives the tables that an older version made the indexes that the AppView's schema tool wants there.
///
/// Who writes such a table goes on while an index is built; cut off, it goes on where it was.
pub(super) async fn remake(conn: &mut PgConnection, database: Database<'_>) -> Step<()> {
    for block in RENAMED.split("\n\n") {
        patiently(conn, Wait::Table, "notifications or firehose_cursor", block).await?;
    }
    for Remade { table, made, dropped } in REMADE {
        // The first goes last, so that it tells of all.
        if !is_there(conn, dropped[0]).await? {
            continue;
        }
        for (name, on) in made {
            build(conn, database, name, table, &format!("INDEX CONCURRENTLY {name} ON {{table}} {on}")).await?;
        }
        for name in dropped.iter().rev() {
            drop_index(conn, database, name).await?;
        }
    }
    for column in COUNTED {
        let name = format!("idx_post_aggregations_{column}");
        let is_partial =
            "SELECT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass($1) AND indpred IS NOT NULL)";
        let whole = format!("{name}_all");
        let mut tx = session::begin_reading(conn).await?;
        let is_partial: bool = sqlx::query_scalar(is_partial).bind(&name).fetch_one(&mut *tx).await?;
        tx.rollback().await?;
        if is_partial {
            let index = format!("INDEX CONCURRENTLY {whole} ON {{table}} ({column})");
            build(conn, database, &whole, "post_aggregations", &index).await?;
            drop_index(conn, database, &name).await?;
        }
        if is_there(conn, &whole).await? {
            patiently(conn, Wait::Table, "post_aggregations", &format!("ALTER INDEX {whole} RENAME TO {name}")).await?;
        }
    }
    Ok(())
}

/// Builds the indexes that statements of the worker need and that are not there, whoever dropped them.
pub(super) async fn complete(conn: &mut PgConnection, database: Database<'_>) -> Step<()> {
    let mut tx = session::begin_reading(conn).await?;
    let missing = needed::missing(&mut tx).await?;
    tx.rollback().await?;
    for needed in missing {
        let schema = needed.schema();
        // Another one has the name: it is somebody's, and stays.
        let taken = is_valid(conn, &format!("{schema}{}", needed.name)).await? == Some(true);
        let name = if taken { format!("{}_needed", needed.name) } else { needed.name.clone() };
        build(conn, database, &format!("{schema}{name}"), needed.table, &needed.index(&name)).await?;
    }
    Ok(())
}

pub(super) async fn is_there(conn: &mut PgConnection, index: &str) -> sqlx::Result<bool> {
    Ok(with_schema(conn, index).await?.is_some())
}

/// Returns the name of a table or an index with its schema; none where there is none.
async fn with_schema(conn: &mut PgConnection, name: &str) -> sqlx::Result<Option<String>> {
    let mut tx = session::begin_reading(conn).await?;
    let found = sqlx::query_scalar(WITH_SCHEMA).bind(name).fetch_optional(&mut *tx).await?;
    tx.rollback().await?;
    Ok(found)
}

const WITH_SCHEMA: &str = "\
SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.oid = to_regclass($1)";

const IS_VALID: &str = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1)";

/// Returns whether an index is whole; none where there is none.
async fn is_valid(conn: &mut PgConnection, index: &str) -> sqlx::Result<Option<bool>> {
    let mut tx = session::begin_reading(conn).await?;
    let found = sqlx::query_scalar(IS_VALID).bind(index).fetch_optional(&mut *tx).await?;
    tx.rollback().await?;
    Ok(found)
}

/// How often to begin anew where somebody else's transaction and the build waited for each other.
const ATTEMPTS: usize = 5;

/// Builds what stands behind `CREATE`, with the name of the table in it as `{table}`.
async fn build(
    conn: &mut PgConnection,
    database: Database<'_>,
    name: &str,
    table: &str,
    index: &str,
) -> sqlx::Result<()> {
    let table = with_schema(conn, table).await?.unwrap_or_else(|| table.to_owned());
    let statement = format!("CREATE {}", index.replace("{table}", &table));
    let mut attempt = 0;
    loop {
        match is_valid(conn, name).await? {
            Some(true) => return Ok(()),
            // What a build left that was cut off: it is kept up to date, and never read.
            Some(false) => drop_index(conn, database, name).await?,
            None => {}
        }
        info!(index = name, "building an index, readers and writers go on");
        let built = concurrently(conn, database, &statement).await;
        attempt += 1;
        match built {
            Ok(()) => return Ok(()),
            Err(error) if is_locked(&error) && attempt < ATTEMPTS => {}
            Err(error) => {
                // Rows that are there twice, or no room: nobody is to keep it up to date for nothing.
                let _ = drop_index(conn, database, name).await;
                return Err(error);
            }
        }
    }
}

/// Drops an index if it is there.
async fn drop_index(conn: &mut PgConnection, database: Database<'_>, name: &str) -> sqlx::Result<()> {
    match with_schema(conn, name).await? {
        Some(name) => concurrently(conn, database, &format!("DROP INDEX CONCURRENTLY IF EXISTS {name}")).await,
        None => Ok(()),
    }
}
