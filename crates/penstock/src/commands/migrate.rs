//! Creates or migrates the tables.

use penstock_core::settings::Settings;
use penstock_worker::schema;

use crate::error::Error;

pub(super) async fn run(settings: &Settings, recount: bool, rebuild: bool) -> Result<(), Error> {
    super::telemetry::init_logs(settings)?;
    let url = settings.postgres.url.as_ref().ok_or(Error::Missing {
        field: "postgres.url",
        how: "give the database, such as DATABASE_URL=postgres://user:password@host/database",
    })?;
    penstock_worker::migrate(url.expose(), settings.message_buffer.enabled).await?;
    if recount {
        schema::recount(url.expose()).await?;
    }
    if rebuild {
        schema::rebuild(url.expose(), &settings.worker.projections).await?;
    }
    Ok(())
}
