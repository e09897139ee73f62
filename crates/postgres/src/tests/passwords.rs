//! Passwords that change while connections are made.

use std::fs;
use std::time::Duration;

use penstock_local::testing::{TempFolder, TestPostgres};
use sqlx::postgres::PgPoolOptions;

use super::{address, run};
use crate::address::Address;
use crate::password::PasswordSource;
use crate::pool::Pool;

/// Makes a role, and returns an address of it without a password.
async fn role(postgres: &TestPostgres, name: &str) -> Address {
    run(&postgres.url(), &format!("CREATE ROLE {name} LOGIN PASSWORD 'first'")).await;
    address(&format!("postgres://{name}@127.0.0.1:{}/penstock", postgres.port()))
}

fn pool(address: Address) -> Pool {
    let options = PgPoolOptions::new().max_connections(4).acquire_timeout(Duration::from_secs(20));
    Pool::lazy(address, options, |_| true).unwrap()
}

#[tokio::test]
async fn a_password_that_changes_is_read_anew_by_each_connection() {
    let postgres = TestPostgres::shared().await.unwrap();
    let folder = TempFolder::new().unwrap();
    let file = folder.path().join("password");
    let sources = [
        ("by_file", PasswordSource::File(file.display().to_string())),
        ("by_command", PasswordSource::Command(format!("cat {}", file.display()))),
    ];
    for (name, source) in sources {
        let address = role(postgres, name).await.with_password(source);
        assert!(!address.is_fixed());
        fs::write(&file, "first\n").unwrap();
        let pool = pool(address.clone());
        let _held = pool.acquire().await.unwrap();

        run(&postgres.url(), &format!("ALTER ROLE {name} PASSWORD 'second'")).await;
        let refused = pool.acquire().await.unwrap_err();
        let code = refused.as_database_error().and_then(|error| error.code()).unwrap_or_default();
        assert_eq!(code, "28P01", "{refused}");
        assert!(address.connect().await.is_err());

        fs::write(&file, "second\r\n").unwrap();
        let _another = pool.acquire().await.unwrap();
        assert!(address.connect().await.is_ok());
        let mut held = pool.acquire().await.unwrap();
        sqlx::query("SELECT 1").execute(&mut *held).await.unwrap();
    }
}

#[tokio::test]
async fn why_there_is_no_password_is_told_without_any() {
    let folder = TempFolder::new().unwrap();
    let empty = folder.path().join("empty");
    fs::write(&empty, "\n").unwrap();
    let script = folder.path().join("fails");
    fs::write(&script, "echo begun >&2; echo 'no such account' >&2; echo hunter2; exit 3").unwrap();
    for (source, said) in [
        (
            PasswordSource::File("/nowhere/password".to_owned()),
            "could not read postgres.passwordFile /nowhere/password",
        ),
        (PasswordSource::File(empty.display().to_string()), "postgres.passwordFile gave an empty password"),
        (
            PasswordSource::Command("/nowhere/token --secret hunter2".to_owned()),
            "could not run postgres.passwordCommand (/nowhere/token)",
        ),
        (PasswordSource::Command("true".to_owned()), "postgres.passwordCommand gave an empty password"),
        (
            PasswordSource::Command(format!("sh {} hunter2", script.display())),
            "(sh) failed with exit status: 3: no such account",
        ),
    ] {
        let told = source.read().await.unwrap_err().to_string();
        assert!(told.contains(said) && !told.contains("hunter2"), "{told}");
        let connecting = address("postgres://u@127.0.0.1:1/d").with_password(source).connect().await.unwrap_err();
        assert!(connecting.to_string().contains(said), "{connecting}");
    }
}
