//! Repos read from their hosts.
//!
//! In: DIDs. Out: a [`Repo`], of which every hash, the signature and the whole tree were checked before its first record is
//! handed out, in memory that does not grow with the repo. What anyone can send is behind the same fence as documents, and every
//! host is asked within its own limits.

mod car;
mod client;
mod error;
mod events;
mod hosts;
mod listing;
mod records;
mod repo;
mod repos;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

pub use error::RepoError;
pub use penstock_identity::SettingsError;
pub use records::{RepoRecord, Unfit};
pub use repo::{Repo, Source};
pub use repos::{Head, HostRecord, Latest, ListedRepo, RepoPage, Repos};
