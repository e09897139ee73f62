//! Takes secrets out of what is given away.
//!
//! Three nets lie behind each other: values that are known to be secret, fields and variables whose names say so (of literal
//! variables only known settings are kept at all), and what looks like a secret in any text.

use std::collections::HashSet;

use penstock_core::settings::{Settings, mask as mask_address};
use serde_json::{Map, Value};

/// What stands in the place of a secret.
pub(super) const HIDDEN: &str = "***";

/// What names of secrets have in them, in lower case and without `_`, `-` and `.`.
const NAMES: [&str; 14] = [
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "token",
    "secret",
    "apikey",
    "accesskey",
    "privatekey",
    "authorization",
    "credential",
    "cookie",
    "headers",
    "signature",
];

/// The shortest value that is looked for everywhere: a shorter one stands in ordinary words too.
const SHORTEST: usize = 5;

/// Whose annotations are kept: they are made by machines, of what stands elsewhere in the object.
const ANNOTATIONS: [&str; 3] = ["penstock.dev/", "deployment.kubernetes.io/", "kubernetes.io/"];

/// Takes secrets out.
#[derive(Debug)]
pub(super) struct Mask {
    /// The longest first, so that no rest of one is left.
    known: Vec<String>,
    /// The variables that hold settings that are no secrets.
    open: HashSet<String>,
}

// === impl Mask ===

impl Mask {
    pub(super) fn new() -> Self {
        let fields = Settings::catalog().into_iter().filter(|field| !names_secret(field.path));
        let names = fields.flat_map(|field| {
            let older = field.older_names.iter().map(|name| (*name).to_owned());
            older.chain([field.environment_name()]).collect::<Vec<_>>()
        });
        Self { known: Vec::new(), open: names.filter(|name| !names_secret(name)).collect() }
    }

    /// Takes in a value that is secret, with the forms in which it may show.
    pub(super) fn learn(&mut self, value: &[u8]) {
        let Ok(text) = std::str::from_utf8(value) else { return };
        let text = text.trim();
        let mut forms = vec![text.to_owned()];
        // Of an address the host is no secret, and what stands before it is.
        if let Some((_, rest)) = text.split_once("://") {
            if let Some((login, _)) = rest.rsplit_once('@')
                && let Some((_, password)) = login.split_once(':')
            {
                forms.push(password.to_owned());
                forms.push(decoded(password));
            }
        } else {
            // Headers: each name and value.
            forms.extend(text.split([',', '=', ' ', '\n']).map(str::to_owned));
        }
        let escaped = |form: &String| serde_json::to_string(form).map(|json| json.trim_matches('"').to_owned()).ok();
        let more: Vec<_> = forms.iter().filter_map(escaped).collect();
        forms.extend(more);
        forms.retain(|form| form.len() >= SHORTEST && !names_secret(form) && form != "Bearer" && form != "Basic");
        self.known.extend(forms);
        self.known.sort_by_key(|form| std::cmp::Reverse(form.len()));
        self.known.dedup();
    }

    /// Takes secrets out of a text.
    pub(super) fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for known in &self.known {
            if text.contains(known.as_str()) {
                text = text.replace(known.as_str(), HIDDEN);
            }
        }
        keys(&assignments(&words(&text)))
    }

    /// Takes secrets out of an object of the API.
    pub(super) fn value(&self, value: Value) -> Value {
        match value {
            Value::String(text) => self.text(&text).into(),
            Value::Array(items) => self.array(items),
            Value::Object(fields) => self.object(fields),
            other => other,
        }
    }

    fn object(&self, fields: Map<String, Value>) -> Value {
        // A variable, or a header, wherever it stands. Of one that is no setting nobody knows what it holds.
        let name = fields.get("name").and_then(Value::as_str);
        let hides_value = name.is_some_and(|name| fields.get("value").is_some() && !self.open.contains(name));
        let shown = fields.into_iter().filter(|(name, _)| name != "managedFields").map(|(name, value)| {
            let value = match (name.as_str(), value) {
                ("annotations", Value::Object(annotations)) => self.annotations(annotations),
                ("value", Value::String(_)) if hides_value => HIDDEN.into(),
                (name, Value::String(_)) if names_secret(name) => HIDDEN.into(),
                (_, value) => self.value(value),
            };
            (name, value)
        });
        Value::Object(shown.collect())
    }

    fn array(&self, items: Vec<Value>) -> Value {
        // A flag and its value may be two words of a command.
        let mut hides = false;
        let shown = items.into_iter().map(|item| {
            let hidden = std::mem::take(&mut hides) && item.is_string();
            hides =
                item.as_str().is_some_and(|flag| flag.starts_with('-') && !flag.contains('=') && names_secret(flag));
            if hidden { HIDDEN.into() } else { self.value(item) }
        });
        Value::Array(shown.collect())
    }

    /// A copy of the whole object stands in one of them, and what controllers are told in others.
    fn annotations(&self, annotations: Map<String, Value>) -> Value {
        let shown = annotations.into_iter().map(|(name, value)| {
            let domain = name.split_once('/').map_or("", |(domain, _)| domain);
            let is_kept = ANNOTATIONS.iter().any(|kept| kept.trim_end_matches('/') == domain);
            let value = if is_kept { self.value(value) } else { HIDDEN.into() };
            (name, value)
        });
        Value::Object(shown.collect())
    }
}

/// Says whether a name is that of a secret; `secretName` and the like name where one is.
fn names_secret(name: &str) -> bool {
    let name: String = name.chars().filter(|c| !matches!(c, '_' | '-' | '.')).collect::<String>().to_lowercase();
    !name.ends_with("name") && NAMES.iter().any(|part| name.contains(part))
}

fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.bytes());
    while let Some(byte) = rest.next() {
        let mut ahead = rest.clone();
        let hex = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        match (byte, hex(ahead.next()), hex(ahead.next())) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                rest = ahead;
            }
            _ => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Hides logins in addresses, tokens of JSON (JWT), and what follows `Bearer` and `Basic`.
fn words(text: &str) -> String {
    let is_end = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>' | ',' | ';' | '\\' | '|');
    let mut out = String::with_capacity(text.len());
    let (mut rest, mut hides) = (text, false);
    while !rest.is_empty() {
        let end = rest.find(is_end).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.contains("://") {
            out.push_str(&mask_address(word));
        } else if (hides && word.len() >= 4) || (word.starts_with("eyJ") && word.len() >= 20) {
            out.push_str(HIDDEN);
        } else {
            out.push_str(word);
        }
        if !word.is_empty() {
            let word = word.trim_start_matches(|c: char| !c.is_ascii_alphabetic()).to_ascii_lowercase();
            hides =
                matches!(word.as_str(), "bearer" | "basic") || word.ends_with("=bearer") || word.ends_with("=basic");
        }
        let mut characters = after.chars();
        out.extend(characters.next());
        rest = characters.as_str();
    }
    out
}

/// Hides what is assigned to a name that is that of a secret: `password=…`, `"token": "…"`, `--secret …`.
fn assignments(text: &str) -> String {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_name) {
        let (before, from) = rest.split_at(start);
        out.push_str(before);
        let end = from.find(|c| !is_name(c)).unwrap_or(from.len());
        let (name, after) = from.split_at(end);
        out.push_str(name);
        rest = after;
        if !names_secret(name) {
            continue;
        }
        // What may stand between a name and its value.
        let closing = rest.len() - rest.trim_start_matches(['\\', '"', '\'']).len();
        let tail = rest.get(closing..).unwrap_or_default();
        let blank = |text: &str| text.len() - text.trim_start_matches([' ', '\t']).len();
        let spaces = blank(tail);
        let sign = tail.get(spaces..).unwrap_or_default();
        let mut gap = match sign.chars().next() {
            Some('=' | ':') => closing + spaces + 1,
            _ if name.starts_with("--") && spaces > 0 => closing + spaces,
            _ => continue,
        };
        gap += blank(rest.get(gap..).unwrap_or_default());
        let quoted = rest.get(gap..).unwrap_or_default();
        let opening = quoted.len() - quoted.trim_start_matches(['\\', '"', '\'']).len();
        let (kept, value) = rest.split_at(gap + opening);
        let is_end = |c: char| match opening {
            0 => c.is_whitespace() || matches!(c, ',' | ';' | '&' | '}' | ')' | ']' | '"' | '\''),
            _ => matches!(c, '"' | '\'' | '\\' | '\n'),
        };
        let end = value.find(is_end).unwrap_or(value.len());
        let (value, after) = value.split_at(end);
        out.push_str(kept);
        // An object or nothing: what is in it has names of its own.
        let is_plain = value.is_empty() || value.starts_with(['{', '[']) || matches!(value, "null" | "true" | "false");
        out.push_str(if is_plain { value } else { HIDDEN });
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Hides private keys in PEM.
fn keys(text: &str) -> String {
    const END: &str = "-----END ";
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("-----BEGIN ") {
        let (before, from) = rest.split_at(start);
        out.push_str(before);
        let end = from.find(END).map_or(from.len(), |end| end + END.len());
        let (block, after) = from.split_at(end);
        out.push_str(if block.lines().next().is_some_and(|line| line.contains("PRIVATE KEY")) {
            HIDDEN
        } else {
            block
        });
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn masked(text: &str) -> String {
        Mask::new().text(text)
    }

    #[test]
    fn what_looks_like_a_secret_is_hidden_in_any_text() {
        let cases = [
            ("redis://:hunter2@redis:6379/0 does not answer", "redis://:***@redis:6379/0 does not answer"),
            ("at \"postgres://app:hunter2@db/x\"", "at \"postgres://app:***@db/x\""),
            ("password=hunter2 host=db", "password=*** host=db"),
            ("PGPASSWORD: hunter2\nhost: db", "PGPASSWORD: ***\nhost: db"),
            (r#"{"adminToken":"hunter2","port":1}"#, r#"{"adminToken":"***","port":1}"#),
            (r#"{\"token\": \"hunter2\", \"a\": 1}"#, r#"{\"token\": \"***\", \"a\": 1}"#),
            ("--password hunter2 --port 1", "--password *** --port 1"),
            ("authorization: Bearer hunter2hunter2", "authorization: *** ***"),
            ("sent Bearer hunter2hunter2 to", "sent Bearer *** to"),
            ("x eyJhbGciOiJIUzI1NiJ9.e30.abcdef y", "x *** y"),
            ("a\n-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\nb", "a\n***PRIVATE KEY-----\nb"),
            ("api_key='hunter2'", "api_key='***'"),
            ("secretKeyRef: {name: redis, key: url}", "secretKeyRef: {name: redis, key: url}"),
            ("secretName: firehose-tls", "secretName: firehose-tls"),
            ("wss://bsky.network 3 events, 2 failed", "wss://bsky.network 3 events, 2 failed"),
            ("token: null, cookie: ", "token: null, cookie: "),
            ("grüße → 雨 password=ä", "grüße → 雨 password=***"),
        ];
        for (text, expected) in cases {
            assert_eq!(masked(text), expected, "{text}");
        }
    }

    #[test]
    fn known_values_are_hidden_in_every_form() {
        let mut mask = Mask::new();
        mask.learn(b"postgres://app:p%40ss-w0rd@db/x\n");
        mask.learn(b"x-api=geheimnis, other=wichtig");
        mask.learn("a\"b\\c-geheim".as_bytes());
        mask.learn(b"a");
        mask.learn(b"\xff\xfe");
        for text in
            ["it says p@ss-w0rd", "p%40ss-w0rd", "x geheimnis y", "wichtig", "a\"b\\c-geheim", r#"a\"b\\c-geheim"#]
        {
            let shown = mask.text(text);
            assert!(shown.contains(HIDDEN) && !shown.contains("geheim") && !shown.contains("ss-w0rd"), "{shown}");
        }
        assert_eq!(mask.text("a banana"), "a banana");
    }

    #[test]
    fn objects_keep_what_helps_and_lose_what_is_secret() {
        let object = json!({
            "metadata": {
                "managedFields": [{"manager": "kubectl"}],
                "annotations": {
                    "kubectl.kubernetes.io/last-applied-configuration": "{\"x\":\"hunter2\"}",
                    "example.com/basic": "hunter2", "penstock.dev/settings-hash": "4d75",
                },
                "labels": {"app.kubernetes.io/name": "penstock"},
            },
            "spec": {
                "automountServiceAccountToken": false,
                "tls": [{"secretName": "firehose-tls"}],
                "workers": {"extraEnv": [{"name": "MY_OWN", "value": "hunter2"}]},
                "auth": {"readTokenSecret": {"name": "dashboard", "key": "read"}},
                "containers": [{
                    "args": ["run", "--token", "hunter2", "--set", "redis.password=hunter2", "--port", "1"],
                    "env": [
                        {"name": "PENSTOCK_WORKER_RETRY_MAX", "value": "5s"},
                        {"name": "REDIS_URL", "value": "redis://:hunter2@redis:6379"},
                        {"name": "PENSTOCK_DASHBOARD_ADMIN_TOKEN", "value": "hunter2"},
                        {"name": "MY_OWN", "value": "hunter2"},
                        {"name": "DATABASE_URL", "valueFrom": {"secretKeyRef": {"name": "postgres", "key": "url"}}},
                    ],
                }],
            },
        });
        let shown = Mask::new().value(object);
        let text = shown.to_string();
        assert!(!text.contains("hunter2") && !text.contains("managedFields"), "{shown:#}");
        let env = &shown["spec"]["containers"][0]["env"];
        assert_eq!((&env[0]["value"], &env[1]["value"]), (&json!("5s"), &json!("redis://:***@redis:6379")));
        assert_eq!(env[4]["valueFrom"]["secretKeyRef"], json!({"name": "postgres", "key": "url"}));
        assert_eq!(shown["spec"]["auth"]["readTokenSecret"], json!({"name": "dashboard", "key": "read"}));
        assert_eq!(shown["spec"]["tls"][0]["secretName"], "firehose-tls");
        assert_eq!(shown["spec"]["automountServiceAccountToken"], false);
        assert_eq!(shown["metadata"]["annotations"]["penstock.dev/settings-hash"], "4d75");
    }
}
