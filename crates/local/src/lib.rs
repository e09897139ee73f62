//! A Redis and a PostgreSQL of one's own, on free ports in a folder.
//!
//! Each server is tied to the process that started it: it is stopped in order by [`Redis::stop`] and [`Postgres::stop`],
//! killed when dropped, and stopped by a small watchdog when its owner dies without a chance to do either. A folder
//! belongs to one server at a time, and a start after an unclean end goes on with what the folder holds.

mod error;
mod identity;
mod log;
#[cfg(test)]
mod orphans;
mod port;
mod postgres;
mod programs;
mod redis;
mod server;
pub mod testing;

pub use error::LocalError;
pub use postgres::{Postgres, PostgresOptions};
pub use redis::{Persistence, Redis, RedisOptions};
