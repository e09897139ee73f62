//! Whether statements stay with the connection that prepared them.
//!
//! A pooler that lends one session to several clients, and does not know their statements, finds another client's under the name:
//! at best it refuses, at worst it runs that one with our values. So nothing is written through such a pooler.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection};

/// How often both ask: whom a busy pooler lends which session is chance.
const ROUNDS: usize = 3;

/// How long it may take: a pooler of few sessions has none for the second connection.
const PATIENCE: Duration = Duration::from_secs(2);

/// Checks it with two connections that prepared nothing yet and are idle: a pooler gives them the same session, one after the
/// other.
///
/// # Errors
/// The statement of one is not there, or is that of the other.
pub async fn check(one: &mut PgConnection, other: &mut PgConnection) -> sqlx::Result<()> {
    let rounds = async {
        for _ in 0..ROUNDS {
            ask(one, "one").await?;
            ask(other, "other").await?;
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, rounds).await.unwrap_or(Ok(()))
}

/// Prepares a statement of its own, or asks it again.
async fn ask(conn: &mut PgConnection, who: &str) -> sqlx::Result<()> {
    let statement = AssertSqlSafe(format!("SELECT 'penstock asks, connection {who}'"));
    let answer: String = sqlx::query_scalar(statement).fetch_one(conn).await?;
    if answer.ends_with(who) {
        return Ok(());
    }
    let said = "prepared statement \"sqlx_s_1\" is that of another connection";
    Err(sqlx::Error::Protocol(said.to_owned()))
}
