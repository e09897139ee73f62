//! `label_events`: that a label was created. The event is deleted with its label, as the table's foreign key demands.

use sqlx::PgConnection;

use super::touched::Touched;
use crate::store::tally::Tally;

const CREATED: &str = "\
INSERT INTO label_events (label_uri, action) SELECT u.uri, 'created' FROM unnest($1::text[]) AS u (uri)
 WHERE NOT EXISTS (SELECT FROM label_events AS e WHERE e.label_uri = u.uri OFFSET 0)";

/// Does nothing where the foreign key is there.
const DELETED: &str = "DELETE FROM label_events WHERE label_uri = ANY($1)";

/// Writes what labels that came or went leave.
pub(super) async fn write(conn: &mut PgConnection, touched: &Touched<'_>, tally: &mut Tally) -> sqlx::Result<()> {
    let Touched { labels, gone_labels, .. } = touched;
    if !gone_labels.is_empty() {
        let gone = sqlx::query(DELETED).bind(gone_labels).execute(&mut *conn).await?;
        tally.wrote("label_events", gone.rows_affected());
    }
    if !labels.is_empty() {
        let created = sqlx::query(CREATED).bind(labels).execute(conn).await?;
        tally.wrote("label_events", created.rows_affected());
    }
    Ok(())
}
