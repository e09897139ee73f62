//! `rediss://`: whom we trust, who we are, and ports that speak something else.

use std::fs;

use fred::types::{CustomCommand, Value};
use penstock_local::testing::TempFolder;

use super::authority::{Authority, Signed, write};
use super::*;

/// A Redis that lets nobody in without a certificate, on a port of its own beside one without TLS.
struct Guarded {
    redis: TestRedis,
    url: String,
    folder: TempFolder,
}

// === impl Guarded ===

impl Guarded {
    async fn start(name: Option<&str>, authority: &Authority) -> Option<Self> {
        let folder = TempFolder::new().unwrap();
        let Signed { certificate, key } = authority.sign();
        let ca = write(folder.path(), "ca.pem", &authority.pem());
        let (cert, key) = (write(folder.path(), "server.pem", &certificate), write(folder.path(), "server.key", &key));
        let port = free_port().to_string();
        let arguments = [
            ("--tls-port", &port),
            ("--tls-ca-cert-file", &ca),
            ("--tls-cert-file", &cert),
            ("--tls-key-file", &key),
            ("--tls-auth-clients", &"yes".to_owned()),
        ];
        let arguments: Vec<&str> = arguments.iter().flat_map(|(name, value)| [*name, value.as_str()]).collect();
        let redis = start_of(name, &arguments).await?;
        Some(Self { redis, url: format!("rediss://127.0.0.1:{port}"), folder })
    }

    fn write(&self, name: &str, text: &str) -> String {
        write(self.folder.path(), name, text)
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_a_redis_that_asks_for_one() {
    for name in [None, Some("redis-8"), Some("valkey-8"), Some("valkey-9")] {
        let authority = Authority::new();
        let Some(redis) = Guarded::start(name, &authority).await else { continue };
        let Signed { certificate, key } = authority.sign();
        let ca = redis.write("trusted.pem", &authority.pem());
        let (cert_file, key_file) = (redis.write("tls.crt", &certificate), redis.write("tls.key", &key));
        let address = ("REDIS_URL", redis.url.as_str());
        let trusted = ("PENSTOCK_REDIS_TLS_CA", ca.as_str());

        let said = refused(&[address, trusted]).await;
        let url = &redis.url;
        assert_eq!(
            said,
            format!("{url} asks for a client certificate: set redis.tls.cert and redis.tls.key"),
            "{name:?}"
        );
        let files = [("PENSTOCK_REDIS_TLS_CERT", cert_file.as_str()), ("PENSTOCK_REDIS_TLS_KEY", key_file.as_str())];
        connected(&[address, trusted, files[0], files[1]]).await;
        // As a Secret puts them into the environment.
        let texts = [("PENSTOCK_REDIS_TLS_CERT", certificate.as_str()), ("PENSTOCK_REDIS_TLS_KEY", key.as_str())];
        let authority_text = authority.pem();
        connected(&[address, ("PENSTOCK_REDIS_TLS_CA", &authority_text), texts[0], texts[1]]).await;

        let foreign = Authority::new().sign();
        let texts = [("PENSTOCK_REDIS_TLS_CERT", &*foreign.certificate), ("PENSTOCK_REDIS_TLS_KEY", &*foreign.key)];
        let said = refused(&[address, trusted, texts[0], texts[1]]).await;
        assert!(said.contains("could not connect") && !said.contains("BEGIN"), "{name:?}: {said}");
        let said = refused(&[address, files[0], files[1]]).await;
        assert!(said.contains("UnknownIssuer"), "{name:?}: {said}");
    }
}

#[tokio::test]
async fn a_certificate_that_is_replaced_on_disk_counts_from_the_next_connection_on() {
    let (before, after) = (Authority::new(), Authority::new());
    let redis = Guarded::start(None, &before).await.unwrap();
    let ca = redis.write("trusted.pem", &before.pem());
    let Signed { certificate, key } = before.sign();
    let (cert, key) = (redis.write("tls.crt", &certificate), redis.write("tls.key", &key));
    let variables = [
        ("REDIS_URL", redis.url.as_str()),
        ("PENSTOCK_REDIS_TLS_CA", ca.as_str()),
        ("PENSTOCK_REDIS_TLS_CERT", cert.as_str()),
        ("PENSTOCK_REDIS_TLS_KEY", key.as_str()),
    ];
    let client = connected(&variables).await;
    // One that cannot be read, as in the middle of its replacement, leaves the one before.
    fs::write(&cert, "-----BEGIN CERT").unwrap();
    client.force_reconnection().await.unwrap();
    assert_eq!(client.ping::<String>(None).await.unwrap(), "PONG");
    // Redis believes another authority from now on.
    let Signed { certificate, key: new_key } = after.sign();
    fs::write(&key, new_key).unwrap();
    fs::write(&cert, certificate).unwrap();
    let believed = redis.write("after.pem", &after.pem());
    let plain = connected(&[("REDIS_URL", &redis.redis.url())]).await;
    let set = CustomCommand::new_static("CONFIG", None, false);
    let set: Value = plain.custom(set, vec!["SET", "tls-ca-cert-file", &believed]).await.unwrap();
    assert_eq!(set.as_string().as_deref(), Some("OK"));
    client.force_reconnection().await.unwrap();
    assert_eq!(client.ping::<String>(None).await.unwrap(), "PONG");
}

#[tokio::test]
async fn a_port_that_speaks_something_else_says_so() {
    let authority = Authority::new();
    for name in [None, Some("redis-8"), Some("valkey-9")] {
        let Some(redis) = Guarded::start(name, &authority).await else { continue };
        let ca = redis.write("trusted.pem", &authority.pem());
        let to_plain = redis.redis.url().replace("redis://", "rediss://u:hunter2@");
        let said = refused(&[("REDIS_URL", &to_plain), ("PENSTOCK_REDIS_TLS_CA", &ca)]).await;
        assert!(said.contains("does not speak TLS on this port: use redis:// here"), "{name:?}: {said}");
        let to_tls = redis.url.replace("rediss://", "redis://u:hunter2@");
        let tls = refused(&[("REDIS_URL", &to_tls)]).await;
        assert!(tls.contains("speaks TLS on this port: use rediss:// here"), "{name:?}: {tls}");
        assert!(!said.contains("hunter2") && !tls.contains("hunter2"));
    }
    // Nobody at all is another matter.
    let said = refused(&[("REDIS_URL", &format!("redis://127.0.0.1:{}", free_port()))]).await;
    assert!(said.contains("could not connect"), "{said}");
}

#[tokio::test]
async fn what_cannot_be_used_is_named_by_setting_and_path_and_never_shown() {
    let authority = Authority::new();
    let folder = TempFolder::new().unwrap();
    let Signed { certificate, key } = authority.sign();
    let (cert, key) = (write(folder.path(), "tls.crt", &certificate), write(folder.path(), "tls.key", &key));
    let other = write(folder.path(), "other.key", &authority.sign().key);
    let none = write(folder.path(), "none.pem", "hunter2");
    let nowhere = folder.path().join("nowhere.pem").to_str().unwrap().to_owned();
    let url = "rediss://127.0.0.1:1";
    for (ca, cert, key, said) in [
        (&nowhere, &cert, &key, format!("could not use redis.tls.ca ({nowhere}): No such file or directory")),
        (&none, &cert, &key, format!("could not use redis.tls.ca ({none}): it holds no certificate in PEM")),
        (&cert, &none, &key, format!("could not use redis.tls.cert ({none}): it holds no certificate in PEM")),
        (&cert, &cert, &none, format!("could not use redis.tls.key ({none}): it holds no private key in PEM")),
        (&cert, &cert, &other, "could not use redis.tls.cert with redis.tls.key:".to_owned()),
    ] {
        let variables = [
            ("REDIS_URL", url),
            ("PENSTOCK_REDIS_TLS_CA", ca),
            ("PENSTOCK_REDIS_TLS_CERT", cert),
            ("PENSTOCK_REDIS_TLS_KEY", key),
        ];
        let told = refused(&variables).await;
        assert!(told.contains(&said) && !told.contains("hunter2"), "{told}");
    }
}

#[test]
fn half_a_pair_and_certificates_without_tls_are_refused() {
    let load = |variables: &[(&str, &str)]| {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Settings::load(&Layers::default().environment(variables)).map(drop).map_err(|error| error.to_string())
    };
    let said = load(&[("REDIS_URL", "rediss://h"), ("PENSTOCK_REDIS_TLS_CERT", "/c")]).unwrap_err();
    assert!(said.starts_with("redis.tls.key ") && said.contains("required because redis.tls.cert is set"), "{said}");
    let said = load(&[("REDIS_URL", "rediss://h"), ("PENSTOCK_REDIS_TLS_KEY", "/k")]).unwrap_err();
    assert!(said.starts_with("redis.tls.cert "), "{said}");
    let said = load(&[("REDIS_URL", "redis://:hunter2@h"), ("PENSTOCK_REDIS_TLS_CA", "/c")]).unwrap_err();
    assert!(said.starts_with("redis.tls.ca (PENSTOCK_REDIS_TLS_CA): \"/c\"") && !said.contains("hunter2"), "{said}");
    assert_eq!(
        load(&[("REDIS_URL", "rediss-sentinel://h?sentinelServiceName=m"), ("PENSTOCK_REDIS_TLS_CA", "/c")]),
        Ok(())
    );
}
