//! Against real servers: a socket, IPv6, a pair of which one fails over, certificates, and passwords that change.

mod passwords;
mod reach;
mod tls;

use penstock_local::PostgresOptions;
use penstock_local::testing::{TestPostgres, unpacked};
use sqlx::{AssertSqlSafe, Connection, Executor};

use crate::address::Address;

/// Runs statements over a connection of their own.
async fn run(url: &str, sql: &str) {
    let mut connection = url.parse::<Address>().unwrap().connect().await.unwrap();
    connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    connection.close().await.unwrap();
}

/// Returns the one value that a query over an address gives.
async fn value(address: &Address, sql: &str) -> sqlx::Result<String> {
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut address.connect().await?).await
}

fn address(url: &str) -> Address {
    url.parse().unwrap_or_else(|error| panic!("{url}: {error}"))
}

/// The options of the installed server, and of each newer one that can be had.
fn versions() -> Vec<PostgresOptions> {
    let fast = PostgresOptions { durable: false, ..PostgresOptions::default() };
    let newer = ["postgresql-17", "postgresql-18"].into_iter().filter_map(unpacked);
    let newer = newer.map(|programs| PostgresOptions { programs: Some(programs), ..fast.clone() });
    [fast.clone()].into_iter().chain(newer).collect()
}

/// Returns what stands between `//` and the host.
fn login(postgres: &TestPostgres) -> String {
    let url = postgres.url();
    url.split_once("//").and_then(|(_, rest)| rest.split_once('@')).map(|(login, _)| login.to_owned()).unwrap()
}
