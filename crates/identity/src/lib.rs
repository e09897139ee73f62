//! Accounts' keys, hosts and handles, for every service alike.
//!
//! In: DIDs. Out: what their documents say, from memory, from the table that all services share, or from the network, in this order.
//! Anyone can write any address into a document, so everything that is fetched is fetched behind a [fence](fence).

mod cache;
mod did;
mod document;
mod error;
mod events;
pub mod export;
mod fence;
mod fetch;
mod handle;
mod identities;
pub mod import;
mod policy;
pub mod stored;
mod table;
#[cfg(test)]
mod tests;

pub use cache::KnownKey;
pub use document::{Document, DocumentError, LARGEST};
pub use error::{ResolveError, SettingsError};
pub use fetch::web;
pub use identities::{Handle, Identities, Identity, RepoStatus};
