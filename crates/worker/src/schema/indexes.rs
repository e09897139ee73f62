//! The indexes that the AppView's schema tool wants, on tables that Penstock 0.1 made with others.

use sqlx::{AssertSqlSafe, Executor, PgConnection};
use tracing::info;

use super::is_locked;
use super::pieces::patiently;

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

/// Gives the tables that an older version made the indexes that the AppView's schema tool wants there.
///
/// Who writes such a table goes on while an index is built; cut off, it goes on where it was.
pub(super) async fn remake(conn: &mut PgConnection) -> sqlx::Result<()> {
    for block in RENAMED.split("\n\n") {
        patiently(conn, block).await?;
    }
    for Remade { table, made, dropped } in REMADE {
        // They go all at once, so that the first tells of all.
        if !is_there(conn, dropped[0]).await? {
            continue;
        }
        for (name, on) in made {
            build(conn, name, &format!("{table} {on}")).await?;
        }
        patiently(conn, &format!("DROP INDEX IF EXISTS {}", dropped.join(", "))).await?;
    }
    for column in COUNTED {
        let name = format!("idx_post_aggregations_{column}");
        let is_partial =
            "SELECT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass($1) AND indpred IS NOT NULL)";
        if sqlx::query_scalar(is_partial).bind(&name).fetch_one(&mut *conn).await? {
            build(conn, &format!("{name}_all"), &format!("post_aggregations ({column})")).await?;
            patiently(conn, &format!("DROP INDEX {name}; ALTER INDEX {name}_all RENAME TO {name}")).await?;
        }
    }
    Ok(())
}

async fn is_there(conn: &mut PgConnection, index: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL").bind(index).fetch_one(conn).await
}

const IS_VALID: &str = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1)";

/// How often to begin anew where somebody else's transaction and the build waited for each other.
const ATTEMPTS: usize = 5;

async fn build(conn: &mut PgConnection, name: &str, on: &str) -> sqlx::Result<()> {
    let mut attempt = 0;
    loop {
        match sqlx::query_scalar(IS_VALID).bind(name).fetch_optional(&mut *conn).await? {
            Some(true) => return Ok(()),
            // What a build left that was cut off: it is kept up to date, and never read.
            Some(false) => drop(patiently(conn, &format!("DROP INDEX {name}")).await?),
            None => {}
        }
        info!(index = name, "building an index, readers and writers go on");
        // It waits for transactions that began before it, however long, and nobody waits for it.
        conn.execute("SET lock_timeout = 0").await?;
        let built = conn.execute(AssertSqlSafe(format!("CREATE INDEX CONCURRENTLY {name} ON {on}"))).await;
        conn.execute("SET lock_timeout = '3s'").await?;
        attempt += 1;
        match built {
            Ok(_) => return Ok(()),
            Err(error) if is_locked(&error) && attempt < ATTEMPTS => {}
            Err(error) => return Err(error),
        }
    }
}
