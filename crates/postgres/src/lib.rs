//! How PostgreSQL is reached, for every service alike: which server, over what TLS, and with which password.
//!
//! In: the address of the settings. Out: connections, alone or in a pool. A server and a password are looked for anew with each
//! connection, because both may change while a service runs: after a failover, or because the password is a token that expires.

mod address;
mod choose;
mod password;
mod pool;
pub mod schema;
#[cfg(test)]
mod tests;

pub use address::{Address, AddressError};
pub use password::{PasswordError, PasswordSource};
pub use pool::Pool;
