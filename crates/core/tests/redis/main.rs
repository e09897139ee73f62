//! What connecting to a real server says: which one it is, whether it can what is needed, and what is wrong with the address.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail the test")]

mod authority;
mod server;
mod tls;

use std::net::{Ipv4Addr, TcpListener};

use fred::clients::Client;
use fred::interfaces::ClientLike;
use penstock_core::causes::chain;
use penstock_core::redis::{self, RedisError};
use penstock_core::settings::{Layers, Settings};
use penstock_local::RedisOptions;
use penstock_local::testing::{TestRedis, unpacked};

/// Settings of some variables.
fn settings(variables: &[(&str, &str)]) -> Settings {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Settings::load(&Layers::default().environment(variables)).unwrap()
}

async fn connect(variables: &[(&str, &str)]) -> Result<Client, RedisError> {
    redis::connect(&settings(variables)).await
}

/// Connects, and asserts that it answers.
async fn connected(variables: &[(&str, &str)]) -> Client {
    let client = connect(variables).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(client.ping::<String>(None).await.unwrap(), "PONG");
    client
}

/// Asserts that there is no connection; returns what is said.
async fn refused(variables: &[(&str, &str)]) -> String {
    let error = connect(variables).await.err().unwrap_or_else(|| panic!("{variables:?} connected"));
    chain(&error)
}

async fn start(extra: &[&str]) -> TestRedis {
    start_of(None, extra).await.unwrap()
}

/// Starts the server of that name; none where it cannot be had.
async fn start_of(name: Option<&str>, extra: &[&str]) -> Option<TestRedis> {
    let programs = match name {
        Some(name) => Some(unpacked(name)?),
        None => None,
    };
    let extra = extra.iter().map(|argument| (*argument).to_owned()).collect();
    Some(TestRedis::start_with(RedisOptions { programs, extra, ..RedisOptions::default() }).await.unwrap())
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}
