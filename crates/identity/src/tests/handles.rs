//! Handles, checked both ways.

use std::sync::Arc;

use super::dns::{Dns, Entry};
use super::web::{Reply, Web};
use super::*;
use crate::Handle;

const NAME: &str = "alice.example.com";
const TEXT: &str = "_atproto.alice.example.com";
const OTHER: &str = "did=did:plc:aaaaaaaaaaaaaaaaaaaaaaaa";
const OWN: &str = "did=did:plc:ewvi7nxzyoun6zhxrhs64oiz";

/// A directory with one account that claims a handle, a name server, and a web server that is all hosts.
struct World {
    directory: Web,
    dns: Dns,
    web: Web,
    roots: rustls::RootCertStore,
}

impl World {
    async fn start(claimed: &'static str) -> Self {
        let directory = full_directory().await;
        directory.answer(move |_, path| {
            Reply::json(200, &document(path.trim_start_matches('/'), K256, "https://pds.example.com", claimed))
        });
        let dns = Dns::start(&[]).await;
        let names = ["*.example.com", "alice.test", "inside.example.org", "127.0.0.2"];
        let (web, roots) = Web::start_tls(&names, |_, _| Reply::text(404, "")).await;
        for name in [NAME, "other.example.com", "alice.test"] {
            dns.set(name, Entry::At(vec!["127.0.0.1".parse().unwrap()]));
        }
        dns.set("inside.example.org", Entry::At(vec!["127.0.0.2".parse().unwrap()]));
        Self { directory, dns, web, roots }
    }

    fn identities(&self, flags: &[(&str, &str)]) -> Identities {
        let server = self.dns.address.to_string();
        let mut all = vec![("identity.dnsServer", server.as_str()), ("identity.allowedNetworks", "127.0.0.1")];
        all.extend_from_slice(flags);
        let options = Options { roots: Some(self.roots.clone()), https_port: Some(self.web.address.port()) };
        identities_with(&self.directory, &all, None, options)
    }

    async fn handle(&self) -> Result<Handle, ResolveError> {
        self.identities(&[]).handle(DID).await
    }
}

fn valid() -> Result<Handle, ResolveError> {
    Ok(Handle::Valid(NAME.into()))
}

#[tokio::test]
async fn the_name_servers_word_counts_first() {
    let world = World::start(NAME).await;
    world.web.answer(|_, _| Reply::text(200, "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"));
    for (texts, expected) in [
        (vec![vec![OWN]], valid()),
        (vec![vec!["did=did:plc:ewvi7nx", "zyoun6zhxrhs64oiz"]], valid()),
        (vec![vec![OWN], vec![OWN]], valid()),
        (vec![vec!["v=spf1 -all"], vec![OWN], vec!["DID=x"]], valid()),
        (vec![vec![OTHER]], Ok(Handle::Invalid)),
        (vec![vec![OWN], vec![OTHER]], Ok(Handle::Invalid)),
        (vec![vec![OWN], vec!["did="]], Ok(Handle::Invalid)),
        (vec![vec!["did=did:plc:nonsense"]], Ok(Handle::Invalid)),
        (vec![vec!["did= did:plc:ewvi7nxzyoun6zhxrhs64oiz"]], Ok(Handle::Invalid)),
    ] {
        world.dns.set(TEXT, Entry::Texts(texts.clone()));
        assert_eq!(world.handle().await, expected, "{texts:?}");
    }
    assert_eq!(world.web.hits(), 0);
}

#[tokio::test]
async fn where_the_name_servers_say_nothing_the_host_does() {
    let world = World::start(NAME).await;
    let own = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";
    for (reply, expected) in [
        (Reply::text(200, own), valid()),
        (Reply::text(200, &format!(" {own}\r\n")), valid()),
        (Reply::text(200, "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"), Ok(Handle::Invalid)),
        (Reply::text(200, &format!("{own}\n{own}")), Ok(Handle::Invalid)),
        (Reply::text(200, "<html>"), Ok(Handle::Invalid)),
        (Reply::text(200, &" ".repeat(10_000)), Ok(Handle::Invalid)),
        (Reply::Endless, Ok(Handle::Invalid)),
        (Reply::text(404, own), Ok(Handle::Invalid)),
        (Reply::text(403, ""), Ok(Handle::Invalid)),
    ] {
        let told = format!("{reply:?}");
        world.web.answer(move |_, _| reply.clone());
        assert_eq!(world.handle().await, expected, "{}", &told[..told.len().min(60)]);
    }
    assert!(world.web.asked().iter().all(|path| path == "/.well-known/atproto-did"));
    // Nobody who could say it answers: that is not the same as no.
    for reply in [Reply::text(500, ""), Reply::text(429, ""), Reply::Close] {
        world.web.answer(move |_, _| reply.clone());
        assert_eq!(world.handle().await.unwrap_err().word(), "unreachable");
    }
}

#[tokio::test]
async fn a_broken_name_server_is_not_a_no() {
    let world = World::start(NAME).await;
    world.dns.set(TEXT, Entry::Broken);
    assert_eq!(world.handle().await.unwrap_err().word(), "unreachable");
    world.web.answer(|_, _| Reply::text(200, "did:plc:ewvi7nxzyoun6zhxrhs64oiz"));
    assert_eq!(world.handle().await, valid());
    world.dns.set(NAME, Entry::Broken);
    assert_eq!(world.handle().await.unwrap_err().word(), "unreachable");
}

#[tokio::test]
async fn redirects_are_followed_to_hosts_that_may_be_asked_and_to_no_others() {
    let world = World::start(NAME).await;
    for (status, location, expected) in [
        (302, "https://other.example.com/who?a=b", valid()),
        (301, "/elsewhere", valid()),
        (308, "//other.example.com/", valid()),
        // A private address, by name and by number; plain text; other schemes; credentials; a circle.
        (302, "https://inside.example.org/", Ok(Handle::Invalid)),
        (302, "https://127.0.0.2/", Ok(Handle::Invalid)),
        (302, "https://169.254.169.254/latest/meta-data", Ok(Handle::Invalid)),
        (302, "http://other.example.com/", Ok(Handle::Invalid)),
        (302, "file:///etc/passwd", Ok(Handle::Invalid)),
        (302, "https://user@other.example.com/", Ok(Handle::Invalid)),
        (307, "https://alice.example.com/.well-known/atproto-did", Ok(Handle::Invalid)),
        (302, "", Ok(Handle::Invalid)),
        (300, "https://other.example.com/", Ok(Handle::Invalid)),
    ] {
        world.web.answer(move |host, path| match (host.starts_with(NAME), path) {
            (true, "/.well-known/atproto-did") => Reply::to(status, location),
            _ => Reply::text(200, "did:plc:ewvi7nxzyoun6zhxrhs64oiz"),
        });
        assert_eq!(world.handle().await, expected, "{location}");
    }
    let before = world.web.hits();
    world.web.answer(|_, path| Reply::to(302, &format!("{path}x")));
    assert_eq!(world.handle().await, Ok(Handle::Invalid));
    assert_eq!(world.web.hits() - before, 4);
}

#[tokio::test]
async fn a_handle_that_nobody_can_own_is_not_asked_for() {
    for claimed in ["handle.invalid", "alice.local", "alice.onion", "1.0.0.127.in-addr.arpa", "alice.internal"] {
        let world = World::start(claimed).await;
        assert_eq!(world.handle().await, Ok(Handle::Invalid), "{claimed}");
        assert_eq!((world.dns.asked().len(), world.web.hits()), (0, 0), "{claimed}");
    }
    // For tests there is one, where private networks may be asked.
    let world = World::start("alice.test").await;
    world.dns.set("_atproto.alice.test", Entry::Texts(vec![vec![OWN]]));
    assert_eq!(world.handle().await, Ok(Handle::Valid("alice.test".into())));
    let none = [("identity.allowedNetworks", "")];
    assert_eq!(world.identities(&none).handle(DID).await, Ok(Handle::Invalid));
    // And who claims none, or something that is none, has none.
    let world = World::start("not a handle").await;
    assert_eq!(world.handle().await, Ok(Handle::Invalid));
}

#[tokio::test]
async fn a_check_is_remembered_until_the_account_says_that_something_changed() {
    let world = World::start(NAME).await;
    world.dns.set(TEXT, Entry::Texts(vec![vec![OWN]]));
    let identities = Arc::new(world.identities(&[("identity.retryAfter", "200ms")]));
    assert_eq!(identities.handle(DID).await, valid());
    assert_eq!(identities.handle(DID).await, valid());
    let texts = |world: &World| world.dns.asked().iter().filter(|name| *name == TEXT).count();
    assert_eq!(texts(&world), 1);
    world.dns.set(TEXT, Entry::Texts(vec![vec![OTHER]]));
    assert_eq!(identities.handle(DID).await, valid());
    identities.invalidate(DID).await;
    assert_eq!(identities.handle(DID).await, Ok(Handle::Invalid));
    // What did not lead back is checked again before long.
    world.dns.set(TEXT, Entry::Texts(vec![vec![OWN]]));
    eventually(async || identities.handle(DID).await == valid()).await;
}
