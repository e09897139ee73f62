//! Creates or migrates the tables.

mod progress;

use std::io::{Write as _, stdout};

use penstock_core::settings::Settings;
use penstock_worker::schema::{Database, News, PasswordSource};

use crate::cli::Migrate;
use crate::error::Error;
use progress::Progress;

/// Says what is done, on standard error: bars on a terminal, else lines of the log.
pub(super) async fn run(args: &Migrate, settings: &Settings) -> Result<(), Error> {
    super::telemetry::init_logs(settings)?;
    let postgres = &settings.postgres;
    // What a pooler cannot do is done beside it.
    let url = postgres.direct_url.as_ref().or(postgres.url.as_ref()).ok_or(Error::Missing {
        field: "postgres.url",
        how: "set the database URL, such as DATABASE_URL=postgres://user:password@host/database",
    })?;
    let progress = Progress::new();
    let tell = |news: News<'_>| progress.tell(news);
    let password = PasswordSource::of(&settings.postgres);
    let database = Database::new(url.expose())
        .password(&password)
        .schema(settings.postgres.schema.as_deref())
        .connect_timeout(args.connect_timeout)
        .telling(&tell);
    let messages = settings.message_buffer.enabled;
    if args.plan {
        let plan = database.plan(messages, args.recount, args.rebuild).await?;
        let text = if plan.is_empty() { progress::NOTHING.to_owned() + "\n" } else { plan.to_string() };
        // Nobody reads any more: nothing was changed anyway.
        let _ = stdout().write_all(text.as_bytes());
        return Ok(());
    }
    database.migrate(messages).await?;
    if args.recount {
        database.recount().await?;
    }
    if args.rebuild {
        database.rebuild(&settings.worker.projections).await?;
    }
    Ok(())
}
