//! What the worker makes of its settings.

use std::fs;

use penstock_core::settings::{Settings, Worker};
use penstock_postgres::PasswordSource;

use crate::error::WorkerError;
use crate::store::StoreSettings;

/// How many transactions of this process run at once: while one waits for the disk, the other computes.
pub(crate) const WRITERS: usize = 2;

/// How many entries may be held at once, in batches: those being written, one that waits and one being gathered.
pub(crate) const HELD_BATCHES: usize = WRITERS + 2;

/// The most entries of one batch of the second stream.
const SECOND_BATCH: usize = 250;

/// How many entries of the second stream may be held at once, in batches: one being written, one being gathered.
pub(crate) const SECOND_HELD_BATCHES: usize = 2;

/// The most characters of a consumer's name.
const MAX_NAME: usize = 200;

/// Returns the consumer's name: the one that is set, else `<host name>-<process id>`.
pub(crate) fn consumer_name(worker: &Worker) -> Result<String, WorkerError> {
    match &worker.consumer_id {
        Some(name) if is_name(name) => Ok(name.clone()),
        Some(name) => Err(WorkerError::ConsumerName { name: name.chars().take(64).collect() }),
        None => Ok(format!("{}-{}", host_name(), std::process::id())),
    }
}

/// Returns the most entries of one batch of the second stream, where so many are set for the first.
pub(crate) fn second_batch_size(set: usize) -> usize {
    set.min(SECOND_BATCH)
}

/// Returns how to reach the database; none where no address is set.
#[must_use]
pub fn store(settings: &Settings) -> Option<StoreSettings> {
    let url = settings.postgres.url.as_ref()?;
    Some(StoreSettings {
        password: PasswordSource::of(&settings.postgres),
        schema: settings.postgres.schema.clone(),
        pool_size: settings.postgres.pool_size.get(),
        statement_timeout: settings.postgres.statement_timeout,
        search_vector: settings.worker.search_vector,
        record_cids: settings.worker.record_cids,
        messages: settings.message_buffer.enabled,
        projections: settings.worker.projections.clone(),
        delete_grace: settings.worker.delete_grace,
        asks_hosts: settings.identity.enabled,
        ask_again: settings.identity.retry_after,
        ..StoreSettings::new(url.expose())
    })
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().count() <= MAX_NAME && !name.chars().any(|c| c.is_control() || c.is_whitespace())
}

fn host_name() -> String {
    let kernel = || fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = std::env::var("HOSTNAME").ok().or_else(kernel).map(|name| name.trim().to_owned());
    name.filter(|name| is_name(name)).unwrap_or_else(|| "worker".to_owned())
}

#[cfg(test)]
mod tests {
    use penstock_core::settings::Layers;

    use super::*;

    fn worker(name: Option<&str>) -> Worker {
        let mut layers = Layers::default();
        if let Some(name) = name {
            layers = layers.flag("worker.consumerId", name);
        }
        Settings::load(&layers).unwrap().worker
    }

    #[test]
    fn a_name_that_is_set_is_taken_and_one_that_is_none_is_refused() {
        assert_eq!(consumer_name(&worker(Some("w-0"))).unwrap(), "w-0");
        for bad in ["a b", &"x".repeat(201)] {
            let error = consumer_name(&worker(Some(bad))).unwrap_err().to_string();
            assert!(error.contains("CONSUMER_ID"), "{error}");
        }
    }

    #[test]
    fn processes_of_one_host_have_different_names() {
        let name = consumer_name(&worker(None)).unwrap();
        assert!(name.ends_with(&format!("-{}", std::process::id())) && name.len() > 2, "{name}");
    }
}
