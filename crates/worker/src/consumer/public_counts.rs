//! The public counts, and what of each worker's totals is in them.

use fred::interfaces::HashesInterface;
use fred::types::Value;
use penstock_core::live::COUNTS_NOTE;
use penstock_core::script;

use super::client::{Answer, Consumer};
use crate::store::{CountTotal, Counted};

/// What is in the public counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Published {
    /// Whether they are there.
    pub(crate) shown: bool,
    /// Whether any worker published or recorded anything.
    pub(crate) known: bool,
    /// After which recount they were set; empty if another program set them.
    pub(crate) noted: Option<String>,
}

// === impl Consumer ===

impl Consumer {
    /// Adds to the public counts what each total grew by since it was last published; returns how many had, or none
    /// where it is not settled yet what the public counts begin with.
    pub(crate) async fn publish(&self, totals: &[CountTotal]) -> Answer<Option<u64>> {
        let keys = &self.names.keys;
        let arguments = totals.iter().flat_map(|count| {
            let CountTotal { worker, field, total } = count;
            [format!("{worker}/{field}").into(), field.into(), total.to_string().into()]
        });
        let arguments = [Value::from(COUNTS_NOTE)].into_iter().chain(arguments);
        let touched = vec![keys.counts_published(), keys.record_counts()];
        script::run(&self.client, include_str!("publish.lua"), touched, arguments.collect()).await
    }

    /// Lists of which workers and fields anything was published.
    pub(crate) async fn published_totals(&self) -> Answer<Vec<(String, String)>> {
        let names: Vec<String> = self.client.hkeys(self.names.keys.counts_published()).await?;
        let split = |name: String| name.rsplit_once('/').map(|(worker, field)| (worker.to_owned(), field.to_owned()));
        Ok(names.into_iter().filter_map(split).collect())
    }

    /// Reads what is in the public counts, and whose they are.
    pub(crate) async fn published(&self) -> Answer<Published> {
        let keys = &self.names.keys;
        let touched = vec![keys.counts_published(), keys.record_counts()];
        let answer: Value =
            script::run(&self.client, include_str!("published.lua"), touched, vec![COUNTS_NOTE.into()]).await?;
        let mut answer = answer.into_array().into_iter();
        let mut is_there = || answer.next().and_then(|there| there.as_u64()) == Some(1);
        let (shown, known) = (is_there(), is_there());
        Ok(Published { shown, known, noted: answer.next().and_then(Value::into_string) })
    }

    /// Accepts public counts that another program set, and records so unless something is recorded already.
    pub(crate) async fn accept_counts(&self) -> Answer<()> {
        script::add_field(&self.client, self.names.keys.counts_published(), COUNTS_NOTE, "").await
    }

    /// Sets the public counts, and what each worker has published: both of one moment.
    pub(crate) async fn set_counts(&self, counted: &Counted) -> Answer<()> {
        let keys = &self.names.keys;
        let mut arguments: Vec<Value> = vec![COUNTS_NOTE.into(), counted.id.clone().unwrap_or_default().into()];
        arguments.push(Value::Integer(counted.rows.len() as i64));
        arguments.extend(counted.rows.iter().flat_map(|(field, rows)| [(*field).into(), rows.to_string().into()]));
        arguments.extend(counted.totals.iter().flat_map(|count| {
            let CountTotal { worker, field, total } = count;
            [format!("{worker}/{field}").into(), total.to_string().into()]
        }));
        let touched = vec![keys.counts_published(), keys.record_counts()];
        script::run(&self.client, include_str!("set_counts.lua"), touched, arguments).await
    }
}
