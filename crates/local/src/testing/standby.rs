//! A PostgreSQL that follows another one.

use super::{TempFolder, TestPostgres};
use crate::{LocalError, Postgres};

impl TestPostgres {
    /// Starts a standby of this server: with its data, its password and its settings, on a port of its own.
    ///
    /// # Errors
    ///
    /// As [`Postgres::start`], and when the data cannot be copied.
    pub async fn standby(&self) -> Result<Self, LocalError> {
        let folder = TempFolder::new()?;
        self.copy_for_standby(folder.path()).await?;
        let options = self.options();
        let postgres = Postgres::start_in(folder.path(), options, Some(folder.path().to_owned())).await?;
        Ok(Self { postgres, _folder: folder })
    }
}
