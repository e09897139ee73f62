//! How much stands under the keys that can grow.

use penstock_core::script;

use super::client::{Answer, Consumer};

/// A key and what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeySize {
    /// Its name without the prefix.
    pub(crate) key: &'static str,
    /// Entries, fields or elements.
    pub(crate) length: u64,
    /// As Redis estimates it; none where it may not be asked.
    pub(crate) bytes: Option<u64>,
}

// === impl Consumer ===

impl Consumer {
    /// Asks how big each key is that can grow.
    pub(crate) async fn key_sizes(&self) -> Answer<Vec<KeySize>> {
        let growing = self.names.keys.growing();
        let keys: Vec<String> = growing.iter().map(|(_, key)| key.clone()).collect();
        let sizes: Vec<i64> = script::run(&self.client, include_str!("sizes.lua"), keys, Vec::new()).await?;
        let number = |size: i64| u64::try_from(size).ok();
        let size = |((key, _), of): (&(&'static str, String), &[i64])| {
            let [length, bytes] = of else { return None };
            Some(KeySize { key, length: number(*length)?, bytes: number(*bytes) })
        };
        Ok(growing.iter().zip(sizes.chunks(2)).filter_map(size).collect())
    }
}
