//! What a worker asks of a database before it writes to it.

use penstock_core::settings::Projection;
use sqlx::PgConnection;
use tracing::info;

use super::connection::Store;
use super::derived;
use super::error::StoreError;
use super::schema::{self, SchemaError};

// === impl Store ===

impl Store {
    /// Checks that every table and column that the worker writes exists.
    ///
    /// # Errors
    /// Something is missing, or PostgreSQL could not be asked.
    pub async fn check_schema(&self) -> Result<(), SchemaError> {
        let mut conn = self.connection().await.map_err(SchemaError::Connect)?;
        let checked = self.in_time(self.check_all(&mut conn)).await;
        conn.answered(checked)
    }

    async fn check_all(&self, conn: &mut PgConnection) -> Result<(), SchemaError> {
        let mut tx = self.head.begin_finding(conn).await?;
        let schema = schema::check_place(&mut tx, self.schema.as_deref()).await?;
        let derived = Projection::ALL.into_iter().filter(|one| self.projector.asked().names(*one));
        let derived: Vec<&str> = derived.map(Projection::name).collect();
        schema::grants(&mut tx, &schema, self.messages, &derived).await?;
        schema::check(&mut tx, self.messages).await?;
        info!(schema, "the tables are in this schema");
        let missing = derived::missing(&mut tx, self.projector.asked()).await?;
        if !missing.is_empty() {
            return Err(SchemaError::Missing(missing));
        }
        self.projector.refresh(&mut tx).await?;
        self.head.keep_path(&mut tx).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Returns the random name that the database got when it was migrated first.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached or was never migrated.
    pub async fn incarnation(&self) -> Result<String, StoreError> {
        let query = sqlx::query_scalar("SELECT value FROM penstock.meta WHERE key = 'incarnation'");
        self.in_transaction(async |tx| query.fetch_one(tx).await).await.map_err(StoreError::Incarnation)
    }
}
