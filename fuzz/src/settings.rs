//! Settings: an error names its field, addresses keep their meaning, and no password is ever shown.
//!
//! The first line of an input says how the rest is taken: `file`, `texts`, `login`, `query` or `host`.

use penstock_core::settings::{
    FileError, Layers, RedisUrl, RelayUrl, SUBSCRIBE_REPOS, Settings, SettingsError, Value, mask,
};

/// What stands inside every password here, and nowhere else.
const MARK: &str = "SEKRIT7";

/// The variables that hold an address.
const ADDRESSES: [&str; 3] = ["REDIS_URL", "DATABASE_URL", "RELAY_URL"];

/// Reads settings and checks the answer.
pub fn settings(input: &[u8]) {
    let Some(text) = str::from_utf8(input).ok().filter(|text| !text.contains(MARK)) else { return };
    let Some((way, rest)) = text.split_once('\n') else { return };
    match way {
        "file" => file(rest),
        "texts" => texts(rest),
        "login" => login(rest),
        "query" => query(rest),
        "host" => host(rest),
        _ => {}
    }
}

/// A settings file.
fn file(yaml: &str) {
    match Layers::default().file("s.yaml", yaml) {
        Ok(layers) => check(&layers, |_| true),
        Err(error) => {
            assert!(error.to_string().contains("s.yaml"));
            if let FileError::Yaml { reason, .. } = error {
                assert!(reason.len() < 64, "the parser's word may repeat the file: {reason}");
            }
        }
    }
}

/// Lines of `--path=value` and `NAME=value`.
fn texts(text: &str) {
    let mut layers = Layers::default();
    let mut flags = Vec::new();
    for line in text.lines() {
        let Some((name, value)) = line.split_once('=') else { continue };
        layers = match name.strip_prefix("--") {
            Some(path) => {
                flags.push(path);
                layers.flag(path, value)
            }
            None => layers.environment([(name.to_owned(), value.to_owned())]),
        };
    }
    check(&layers, |field| flags.contains(&field));
}

/// Loads the settings; whatever is wrong is told of a setting that exists, or of a name that somebody wrote.
fn check(layers: &Layers, wrote: impl Fn(&str) -> bool) {
    let Err(SettingsError(errors)) = Settings::load(layers) else { return };
    assert!(!errors.is_empty());
    let catalog = Settings::catalog();
    for error in errors {
        assert!(catalog.iter().any(|field| field.path == error.field) || wrote(&error.field), "{error}");
        assert!(error.to_string().starts_with(&format!("{} (", error.field)) && !error.allowed.is_empty(), "{error}");
    }
}

/// Lines of scheme, user, host and what stands before and after the mark in the password.
fn login(text: &str) {
    let mut lines = text.split('\n');
    let mut line = || lines.next().unwrap_or_default();
    let (scheme, user, host, before, after) = (line(), line(), line(), line(), line());
    // These would end the name, and the password would be something else.
    let plain = |text: &str| !text.contains([':', '@', '/', '?', '#', '\\']);
    // And steps up a path would take the @ behind the password away.
    let steps = |text: &str| text.contains("..") || text.to_ascii_lowercase().contains("%2e");
    if plain(scheme) && plain(user) && !scheme.is_empty() && !steps(after) && !steps(host) {
        hides(&format!("{scheme}://{user}:{before}{MARK}{after}@{host}"));
        // With two slashes first the user would be the scheme of another address.
        if !before.starts_with("//") {
            hides(&format!("{user}:{before}{MARK}{after}@{host}"));
        }
    }
}

/// Lines of what stands around a password among the values of a query, and before and after the mark in it.
fn query(text: &str) {
    let mut lines = text.split('\n');
    let mut line = || lines.next().unwrap_or_default();
    let (address, name, before, after, behind) = (line(), line(), line(), line(), line());
    if !before.contains(['&', '#']) && !name.contains(['=', '&', '#']) {
        hides(&format!("{address}?{name}password={before}{MARK}{after}&{behind}"));
        hides(&format!("{address}?a=b&{name}Password={before}{MARK}{after}"));
    }
}

/// Nothing that is said of an address holds the mark, whatever it is given as.
fn hides(address: &str) {
    let shown = mask(address);
    assert!(!shown.contains(MARK), "{address:?} is shown as {shown:?}");
    assert!(shown.chars().count() <= 300);
    if let Some(url) = RedisUrl::parse(address) {
        assert!(!format!("{url} {url:?}").contains(MARK), "{url}");
    }
    if let Some(url) = RelayUrl::parse(address) {
        assert!(!format!("{url} {url:?} {}", url.host()).contains(MARK), "{url}");
    }
    // All settings for each address are the slow part: one in eight will do.
    if address.len() % 8 != 0 {
        return;
    }
    for name in ADDRESSES.into_iter().chain(["REDIS_HOST"]) {
        // Relays are a list: what stands between commas is an address of its own.
        if name == "RELAY_URL" && address.contains(',') {
            continue;
        }
        let said = match Settings::load(&Layers::default().environment([(name.to_owned(), address.to_owned())])) {
            Ok(settings) => format!("{settings:?}"),
            Err(error) => format!("{error} {error:?}"),
        };
        assert!(!said.contains(MARK), "{name}={address:?}: {said}");
    }
}

/// A host: what is asked for is what is connected to, or it is refused.
fn host(text: &str) {
    if let Some(url) = RedisUrl::from_parts(text, 4242, Some(MARK)) {
        assert!(url.expose().contains(&format!(":{MARK}@")) && !url.to_string().contains(MARK), "{url}");
        let (_, shown) = url.expose().rsplit_once('@').expect("a password ends with it");
        let bare = shown.strip_suffix(":4242").map(|host| host.trim_start_matches('[').trim_end_matches(']'));
        let asked = text.trim_start_matches('[').trim_end_matches(']');
        // Another spelling of the same address, and bytes that are escaped, are the parser's business.
        if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:@/?#".contains(&byte)) && !is_ipv6(asked) {
            assert_eq!(bare, Some(asked), "{text:?}");
        }
    }
    if let Some(url) = RelayUrl::parse(text) {
        let stream = url.subscribe(None);
        assert!(stream.path().ends_with(SUBSCRIBE_REPOS) && stream.query().is_none(), "{stream}");
        let again = RelayUrl::parse(stream.as_str()).expect("the full path is a relay too");
        assert_eq!((again.subscribe(None), again.host()), (stream, url.host()));
        assert_eq!(url.subscribe(Some(7)).query(), Some("cursor=7"));
    }
}

fn is_ipv6(text: &str) -> bool {
    text.parse::<std::net::Ipv6Addr>().is_ok()
}
