//! What the filter leaves out: which rules are in force, what they leave out by number, and how a change of them is told.

use std::collections::HashMap;
use std::sync::Arc;

use penstock_core::filter::{Change, Epoch, LeftOutBy, Rules, Summary};
use penstock_wire::Event;

use crate::events::Events;
use crate::filter_events::Tally;
use crate::owed::{Debts, Owed};

/// The rules of the events that are taken in.
#[derive(Debug, Default)]
pub(crate) struct Filtered {
    /// None before the first events.
    rules: Option<Arc<Rules>>,
    /// The rules that stand beside the cursor, and whether there is one.
    stored: Summary,
    has_cursor: bool,
    /// What is to stand there.
    unstored: Option<String>,
    /// Takes the backfills of what is let in; none without a database.
    debts: Option<Debts>,
    counters: HashMap<LeftOutBy, Tally>,
}

// === impl Filtered ===

impl Filtered {
    /// Starts without rules.
    pub(crate) fn new(debts: Option<Debts>) -> Self {
        Self { debts, ..Self::default() }
    }

    /// Takes what stands beside the cursor of a connection that begins.
    pub(crate) fn resume(&mut self, stored: Option<&Summary>, owed: Option<&str>, has_cursor: bool) {
        if let Some(debts) = &self.debts {
            debts.resume(owed);
        }
        self.stored = stored.cloned().unwrap_or_default();
        self.has_cursor = has_cursor;
        self.unstored = self.rules.as_ref().and_then(|rules| unstored(&self.stored.epoch, rules));
    }

    /// Returns the rules in force; without any, everything is carried.
    pub(crate) fn rules(&self) -> &Rules {
        static EVERYTHING: std::sync::LazyLock<Rules> = std::sync::LazyLock::new(Rules::default);
        self.rules.as_deref().unwrap_or(&EVERYTHING)
    }

    /// Sets the rules of the next events; returns whether they are others than before.
    pub(crate) fn set(&mut self, rules: &Arc<Rules>, cursor: Option<u64>, events: &Events) -> bool {
        let change = match &self.rules {
            Some(before) if Arc::ptr_eq(before, rules) => return false,
            Some(before) if before.epoch() == rules.epoch() => {
                self.rules = Some(Arc::clone(rules));
                return false;
            }
            Some(before) => Some(Change::between(before, rules)),
            None if self.stored.epoch == *rules.epoch() => None,
            // A pipeline that begins has nothing that could be outside.
            None if !self.has_cursor => None,
            None => Some(Change::since(&self.stored, rules)),
        };
        self.unstored = unstored(&self.stored.epoch, rules);
        match change {
            Some(change) => {
                // Before the first event nothing was left out.
                let debts = self.debts.as_ref().zip(cursor);
                let backfills = debts.map(|(debts, cursor)| debts.add(Owed::by(&change, rules, cursor)));
                events.filter().changed(&change, rules, cursor, backfills.as_deref());
            }
            None => events.filter().in_force(rules),
        }
        self.counters.clear();
        self.rules = Some(Arc::clone(rules));
        true
    }

    /// Counts what is left out of an event.
    pub(crate) fn count(&mut self, event: &Event, events: &Events) {
        for (by, count) in &event.filtered {
            let Self { rules, counters, .. } = self;
            let counter = counters.entry(*by).or_insert_with(|| {
                let name = rules.as_ref().map(|rules| rules.name(*by)).unwrap_or_default();
                events.filter().left_out(&name)
            });
            counter.add(*count as u64);
        }
    }

    /// Says whether the rules are to be stored beside the cursor.
    pub(crate) fn is_unstored(&self) -> bool {
        self.unstored.is_some()
    }

    /// Returns the backfills that are to stand beside the cursor with the next batch, where something else does.
    pub(crate) fn take_owed(&self) -> Option<String> {
        self.debts.as_ref()?.take_unstored()
    }

    /// Returns what is to stand beside the cursor with the next batch, where something else does.
    pub(crate) fn take_unstored(&mut self) -> Option<String> {
        let unstored = self.unstored.take()?;
        self.stored = self.rules().summary();
        Some(unstored)
    }
}

fn unstored(stored: &Epoch, rules: &Rules) -> Option<String> {
    if stored == rules.epoch() {
        return None;
    }
    serde_json::to_string(&rules.summary()).ok()
}
