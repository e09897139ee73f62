//! Which server is reached.

use std::fs;
use std::net::{Ipv6Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use penstock_local::PostgresOptions;
use penstock_local::testing::{TempFolder, TestPostgres};
use sqlx::postgres::PgPoolOptions;

use super::{address, login, run, value, versions};
use crate::pool::Pool;

/// How long a failover may take on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test]
async fn a_socket_is_reached_by_its_directory() {
    let sockets = TempFolder::new().unwrap();
    fs::set_permissions(sockets.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let directory = sockets.path().display().to_string();
    let settings = vec![("unix_socket_directories".to_owned(), directory.clone())];
    let postgres = TestPostgres::start_with(PostgresOptions { durable: false, settings, ..PostgresOptions::default() });
    let postgres = postgres.await.unwrap();
    let (login, port) = (login(&postgres), postgres.port());
    for url in [
        format!("postgresql://{login}@/penstock?host={directory}&port={port}"),
        format!("postgresql://{login}@{}:{port}/penstock?sslmode=require", directory.replace('/', "%2F")),
    ] {
        let client = value(&address(&url), "SELECT coalesce(inet_client_addr()::text, 'socket')").await;
        assert_eq!(client.unwrap(), "socket", "{url}");
    }
}

#[tokio::test]
async fn an_ipv6_address_is_reached() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        eprintln!("skipped: this machine has no IPv6");
        return;
    }
    let settings = vec![("listen_addresses".to_owned(), "127.0.0.1,::1".to_owned())];
    let postgres = TestPostgres::start_with(PostgresOptions { durable: false, settings, ..PostgresOptions::default() });
    let postgres = postgres.await.unwrap();
    let (login, port) = (login(&postgres), postgres.port());
    for url in [
        format!("postgres://{login}@[::1]:{port}/penstock"),
        format!("postgres://{login}@/penstock?hostaddr=::1&port={port}"),
    ] {
        assert_eq!(value(&address(&url), "SELECT host(inet_client_addr())").await.unwrap(), "::1", "{url}");
    }
}

#[tokio::test]
async fn the_server_that_takes_writes_is_found_and_found_again_after_a_failover() {
    for options in versions() {
        let mut primary = TestPostgres::start_with(options).await.unwrap();
        let standby = primary.standby().await.unwrap();
        let (login, first, second) = (login(&primary), primary.port(), standby.port());
        let url = |attribute: &str| {
            let hosts = format!("127.0.0.1:{second},127.0.0.1:{first}");
            address(&format!("postgres://{login}@{hosts}/penstock?target_session_attrs={attribute}"))
        };
        let port = async |attribute: &str| value(&url(attribute), "SELECT inet_server_port()::text").await;
        for (attribute, expected) in [
            ("any", second),
            ("read-write", first),
            ("primary", first),
            ("read-only", second),
            ("standby", second),
            ("prefer-standby", second),
        ] {
            assert_eq!(port(attribute).await.unwrap(), expected.to_string(), "{attribute}");
        }
        run(&primary.url(), "CREATE TABLE written (n int)").await;
        let copied = Instant::now();
        while value(&address(&standby.url()), "SELECT coalesce(to_regclass('written')::text, '')")
            .await
            .unwrap()
            .is_empty()
        {
            assert!(copied.elapsed() < PATIENCE, "the standby does not follow");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let options = PgPoolOptions::new().max_connections(3).acquire_timeout(Duration::from_secs(5));
        let pool = Pool::lazy(url("read-write"), options, |_| true).unwrap();
        let write = async || {
            let mut connection = pool.acquire().await?;
            sqlx::query("INSERT INTO written VALUES (1)").execute(&mut *connection).await.map(drop)
        };
        // Two that are idle then, both to the one that goes.
        let held = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
        drop(held);
        write().await.unwrap();

        primary.kill();
        let none = value(&url("primary"), "SELECT ''").await.unwrap_err().to_string();
        assert!(none.contains("no server is primary"), "{none}");
        assert!(none.contains(&format!("127.0.0.1:{second} is a standby")), "{none}");
        assert!(none.contains(&format!("127.0.0.1:{first} does not answer")), "{none}");
        let passwords = login.split_once(':').unwrap();
        assert!(!none.contains(passwords.1), "{none}");

        run(&standby.url(), "SELECT pg_promote()").await;
        let began = Instant::now();
        while let Err(error) = write().await {
            assert!(began.elapsed() < PATIENCE, "{error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(port("read-write").await.unwrap(), second.to_string());
        let rows = value(&address(&standby.url()), "SELECT count(*)::text FROM written").await.unwrap();
        assert!(rows.parse::<u32>().unwrap() >= 1, "{rows}");
    }
}

#[tokio::test]
async fn a_server_that_was_made_read_only_is_not_taken_for_one_that_takes_writes() {
    let postgres = TestPostgres::start().await.unwrap();
    let url = format!("{}?target_session_attrs=read-write", postgres.url());
    assert!(value(&address(&url), "SELECT ''").await.is_ok());
    run(&postgres.url(), "ALTER SYSTEM SET default_transaction_read_only = on").await;
    run(&postgres.url(), "SELECT pg_reload_conf()").await;
    let began = Instant::now();
    let refused = loop {
        match value(&address(&url), "SELECT ''").await {
            Err(error) => break error.to_string(),
            // The server takes a moment to read its settings again.
            Ok(_) => assert!(began.elapsed() < PATIENCE),
        }
    };
    assert!(refused.contains("is read-only"), "{refused}");
    let wrong = address(&url.replace("penstock?", "nothing?"));
    let refused = value(&wrong, "SELECT ''").await.unwrap_err();
    assert!(refused.as_database_error().is_some(), "{refused}");
}
