//! Addresses that are not asked, whoever names them.

use super::dns::{Dns, Entry};
use super::web::{Reply, Web};
use super::*;

async fn host_of(directory: &Web, host: String) {
    directory.answer(move |_, path| Reply::json(200, &document(path.trim_start_matches('/'), P256, &host, "a.com")));
}

#[tokio::test]
async fn a_private_host_is_not_asked_unless_a_setting_names_it() {
    let directory = full_directory().await;
    let host = Web::start(|_, _| Reply::json(200, &json!({"did": DID, "active": true}))).await;
    let port = host.address.port();
    let dns = Dns::start(&[
        ("inside.example.com", Entry::At(vec!["127.0.0.1".parse().unwrap()])),
        ("mapped.example.com", Entry::At(vec!["::ffff:127.0.0.1".parse().unwrap()])),
        ("six.example.com", Entry::At(vec!["::1".parse().unwrap(), "64:ff9b::7f00:1".parse().unwrap()])),
        ("metadata.example.com", Entry::At(vec!["169.254.169.254".parse().unwrap()])),
        ("both.example.com", Entry::At(vec!["10.0.0.1".parse().unwrap(), "127.0.0.1".parse().unwrap()])),
        ("empty.example.com", Entry::At(Vec::new())),
    ])
    .await;
    let server = dns.address.to_string();
    let ask = async |host: String, allowed: &str| {
        host_of(&directory, host).await;
        let flags = [("identity.allowedNetworks", allowed), ("identity.dnsServer", server.as_str())];
        identities(&directory, &flags).repo_status(DID).await
    };
    for host in [
        format!("http://127.0.0.1:{port}"),
        format!("https://127.0.0.1:{port}"),
        format!("http://2130706433:{port}"),
        format!("http://0x7f.1:{port}"),
        format!("http://0:{port}"),
        format!("http://localhost:{port}"),
        format!("http://[::1]:{port}"),
        format!("http://[::ffff:127.0.0.1]:{port}"),
        format!("http://inside.example.com:{port}"),
        format!("http://mapped.example.com:{port}"),
        format!("http://six.example.com:{port}"),
        format!("http://both.example.com:{port}"),
        "http://169.254.169.254".to_owned(),
        "https://metadata.example.com".to_owned(),
        "https://[fd00:ec2::254]".to_owned(),
        "https://192.168.0.1".to_owned(),
    ] {
        let error = ask(host.clone(), "10.20.0.0/16").await.unwrap_err();
        assert!(error.is_final() && error.to_string().contains("identity.allowedNetworks"), "{host}: {error}");
    }
    // Of the open internet, and yet not asked: in plain text, or at another port. No packet is sent.
    for (host, why) in [
        ("http://1.1.1.1", "plain HTTP"),
        ("https://1.1.1.1:22", "a port other than 443"),
        ("https://1.1.1.1:8443", "a port other than 443"),
    ] {
        let error = ask(host.to_owned(), "127.0.0.1").await.unwrap_err();
        assert!(error.to_string().contains(why), "{host}: {error}");
    }
    // A host that is gone says nothing of its accounts.
    for host in ["https://empty.example.com", "https://none.example.com"] {
        assert_eq!(ask(host.to_owned(), "").await.unwrap_err().word(), "unreachable", "{host}");
    }
    assert_eq!(host.hits(), 0);
    for host in [
        format!("http://127.0.0.1:{port}"),
        format!("http://localhost:{port}"),
        format!("http://inside.example.com:{port}"),
        // The address that may be asked is taken, the other is not tried.
        format!("http://both.example.com:{port}"),
    ] {
        assert_eq!(ask(host.clone(), "127.0.0.1").await, Ok(RepoStatus::Active { rev: None }), "{host}");
    }
    assert_eq!(host.hits(), 4);
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_the_next_time_is_checked_the_next_time() {
    let directory = full_directory().await;
    let host = Web::start(|_, _| Reply::Say(200, vec![("connection", "close".into())], b"{}".to_vec())).await;
    let dns = Dns::start(&[("moving.example.com", Entry::At(vec!["127.0.0.1".parse().unwrap()]))]).await;
    host_of(&directory, format!("http://moving.example.com:{}", host.address.port())).await;
    let server = dns.address.to_string();
    let flags = [("identity.allowedNetworks", "127.0.0.1"), ("identity.dnsServer", server.as_str())];
    let identities = identities(&directory, &flags);
    assert!(identities.repo_status(DID).await.is_err());
    assert_eq!(host.hits(), 1);
    dns.set("moving.example.com", Entry::At(vec!["127.0.0.2".parse().unwrap()]));
    // A connection may be kept for a moment: it leads to the address that was checked.
    eventually(async || {
        let error = identities.repo_status(DID).await.unwrap_err();
        error.to_string().contains("identity.allowedNetworks")
    })
    .await;
}

#[tokio::test]
async fn a_document_of_did_web_is_behind_the_same_fence() {
    let directory = full_directory().await;
    let host = Web::start(|_, _| Reply::Close).await;
    let did = format!("did:web:localhost%3A{}", host.address.port());
    let document = document(&did, K256, "https://pds.example.com", "a.com");
    host.answer(move |_, path| match path {
        "/.well-known/did.json" => Reply::json(200, &document),
        _ => Reply::text(404, ""),
    });
    assert!(refused(identities(&directory, &[]).resolve(&did).await).contains("identity.allowedNetworks"));
    assert_eq!(host.hits(), 0);
    let allowed = identities(&directory, &[("identity.allowedNetworks", "127.0.0.1,::1")]);
    assert_eq!(key_of(&allowed.resolve(&did).await.unwrap()), K256);
    for (reply, error) in [
        (Reply::text(404, ""), "not_found"),
        (Reply::text(410, ""), "not_found"),
        (Reply::to(301, "http://localhost/.well-known/did.json"), "refused"),
        (Reply::text(500, ""), "unreachable"),
    ] {
        host.answer(move |_, _| reply.clone());
        let allowed = identities(&directory, &[("identity.allowedNetworks", "127.0.0.1,::1")]);
        assert_eq!(allowed.resolve(&did).await.unwrap_err().word(), error);
    }
    assert_eq!(directory.hits(), 0);
}

#[tokio::test]
async fn a_host_that_failed_is_left_alone_and_the_others_are_not() {
    let directory = full_directory().await;
    let (bad, good) = (Web::start(|_, _| Reply::text(500, "")).await, Web::start(|_, _| Reply::Close).await);
    let hosts = [bad.url(), good.url()];
    directory.answer(move |_, path| {
        let did = path.trim_start_matches('/');
        Reply::json(200, &document(did, P256, &hosts[usize::from(did.ends_with('b'))], "a.com"))
    });
    good.answer(|_, path| Reply::json(200, &json!({"did": path.split_once("did=").unwrap().1, "active": true})));
    let identities = identities(&directory, &[("identity.allowedNetworks", "127.0.0.1")]);
    for at in 0..10 {
        assert_eq!(identities.repo_status(&did(at * 32)).await.unwrap_err().word(), "unreachable");
        assert_eq!(identities.repo_status(&did(at * 32 + 1)).await, Ok(RepoStatus::Active { rev: None }));
    }
    assert_eq!((bad.hits(), good.hits()), (1, 10));
}
