//! `notifications`: one row for each cause, made when cause and recipient's post are both there, whichever came later.

use sqlx::PgConnection;
use sqlx::postgres::PgBindIterExt;

use super::touched::Touched;
use crate::store::tally::Tally;

/// A like or a follow that waits for its place keeps its CID: their tables have no column for it.
const KEEP: &str = "\
UPDATE penstock.shadowed AS s SET row = s.row || jsonb_build_object('cid', k.cid)
  FROM (
    SELECT u.uri, coalesce(n.cid, w.cid) AS cid FROM unnest($1::text[]) AS u (uri)
      LEFT JOIN notifications AS n ON n.uri = u.uri || '#notification'
      LEFT JOIN penstock.waiting_cids AS w ON w.uri = u.uri
  ) AS k
 WHERE s.uri = k.uri AND k.cid IS NOT NULL";

const FORGET: &str = "DELETE FROM penstock.waiting_cids WHERE uri = ANY($1)";

/// Withdraws what has no cause any more, then notifies; returns whether nothing is left to do.
pub(super) async fn write(
    conn: &mut PgConnection,
    touched: &Touched<'_>,
    page: u32,
    tally: &mut Tally,
) -> sqlx::Result<bool> {
    let Touched { likes, reposts, follows, gone, gone_likes, demoted, posts, changed, moved, mentions, .. } = touched;
    let mut whole = true;
    if !demoted.is_empty() {
        sqlx::query(KEEP).bind(demoted).execute(&mut *conn).await?;
    }
    if !(gone.is_empty() && changed.is_empty() && moved.is_empty()) {
        let (withdrawn, late): (i64, i64) = sqlx::query_as(include_str!("withdraw.sql"))
            .bind(gone)
            .bind(changed)
            .bind(mentions.iter().map(|(post, _)| post).bind_iter())
            .bind(mentions.iter().map(|(_, did)| did).bind_iter())
            .bind(moved)
            .bind(i64::from(page))
            .fetch_one(&mut *conn)
            .await?;
        tally.wrote("notifications", withdrawn.cast_unsigned());
        whole &= late < i64::from(page);
    }
    if !gone_likes.is_empty() {
        sqlx::query(FORGET).bind(gone_likes).execute(&mut *conn).await?;
    }
    if !(likes.is_empty() && reposts.is_empty() && follows.is_empty() && posts.is_empty() && moved.is_empty()) {
        let (written, late, refused): (i64, i64, i64) = sqlx::query_as(include_str!("notify.sql"))
            .bind(likes.iter().map(|(uri, _)| uri).bind_iter())
            .bind(likes.iter().map(|(_, cid)| cid).bind_iter())
            .bind(reposts.iter().map(|(uri, _)| uri).bind_iter())
            .bind(reposts.iter().map(|(_, cid)| cid).bind_iter())
            .bind(follows.iter().map(|(uri, _)| uri).bind_iter())
            .bind(follows.iter().map(|(_, cid)| cid).bind_iter())
            .bind(posts)
            .bind(moved)
            .bind(i64::from(page))
            .fetch_one(conn)
            .await?;
        tally.wrote("notifications", written.cast_unsigned());
        tally.refused_notifications += refused.cast_unsigned();
        whole &= late < i64::from(page);
    }
    Ok(whole)
}
