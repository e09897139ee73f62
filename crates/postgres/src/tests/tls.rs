//! How a server's certificate is checked.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::Command;
use std::time::Duration;

use penstock_local::testing::{TempFolder, TestPostgres};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::{address, login, run, value};

const USES_TLS: &str = "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()";

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut authority = CertificateParams::new([]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap()
}

/// Gives a server a certificate for `localhost`, and waits until it speaks TLS.
async fn with_tls(postgres: &TestPostgres, authority: &CertifiedIssuer<'static, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, authority).unwrap();
    let owner = fs::metadata(postgres.data()).unwrap();
    for (name, text) in [("server.crt", certificate.pem()), ("server.key", key.serialize_pem())] {
        let path = postgres.data().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    run(&postgres.url(), "ALTER SYSTEM SET ssl = on").await;
    run(&postgres.url(), "SELECT pg_reload_conf()").await;
    let url = address(&format!("{}?sslmode=require", postgres.url()));
    for _ in 0..600 {
        if url.connect().await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the server does not speak TLS");
}

#[tokio::test]
async fn a_certificate_is_checked_as_libpq_checks_it() {
    let postgres = TestPostgres::start().await.unwrap();
    let (right, wrong) = (authority("the right one"), authority("a wrong one"));
    with_tls(&postgres, &right).await;
    let folder = TempFolder::new().unwrap();
    let file = |name: &str, authority: &CertifiedIssuer<'static, KeyPair>| {
        let path = folder.path().join(name);
        fs::write(&path, authority.pem()).unwrap();
        path.display().to_string()
    };
    let (right, wrong) = (file("right.pem", &right), file("wrong.pem", &wrong));
    let (login, port) = (login(&postgres), postgres.port());
    let connects = async |host: &str, query: &str| {
        value(&address(&format!("postgres://{login}@{host}:{port}/penstock?{query}")), USES_TLS).await
    };
    for (host, query, expected) in [
        ("127.0.0.1", "sslmode=disable", Some("false")),
        ("127.0.0.1", "", Some("true")),
        ("127.0.0.1", "ssl=true", Some("true")),
        ("127.0.0.1", "sslmode=require", Some("true")),
        ("127.0.0.1", &format!("sslmode=require&sslrootcert={right}"), Some("true")),
        ("127.0.0.1", &format!("sslmode=require&sslrootcert={wrong}"), None),
        ("127.0.0.1", &format!("sslmode=verify-ca&sslrootcert={right}"), Some("true")),
        ("127.0.0.1", &format!("sslmode=verify-ca&sslrootcert={wrong}"), None),
        ("localhost", &format!("sslmode=verify-full&sslrootcert={right}"), Some("true")),
        ("127.0.0.1", &format!("sslmode=verify-full&sslrootcert={right}"), None),
        ("localhost", "sslmode=verify-full", None),
        ("localhost", "sslrootcert=system", None),
    ] {
        match (connects(host, query).await, expected) {
            (Ok(found), expected) => assert_eq!(Some(found.as_str()), expected, "{host} {query}"),
            (Err(error), Some(_)) => panic!("{host} {query}: {error}"),
            (Err(error), None) => assert!(error.to_string().contains("certificate"), "{host} {query}: {error}"),
        }
    }
    // What the system trusts is what this variable names, for a process that begins with it.
    let url = format!("postgres://{login}@localhost:{port}/penstock?sslrootcert=system");
    for (trusted, succeeds) in [(&right, true), (&wrong, false)] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "--ignored", "tests::tls::the_system_trusts_the_server"]);
        let status = child.env("SSL_CERT_FILE", trusted).env("DATABASE_URL", &url).output().unwrap().status;
        assert_eq!(status.success(), succeeds, "{trusted}");
    }
}

#[tokio::test]
#[ignore = "the other test runs it in a process that trusts something else"]
async fn the_system_trusts_the_server() {
    let url = std::env::var("DATABASE_URL").unwrap();
    assert_eq!(value(&address(&url), USES_TLS).await.unwrap(), "true");
}
