//! Variables that look like settings and are none: named, with what was probably meant.

use std::fmt;
use std::net::IpAddr;

use super::{Layers, Settings, environment_name};

/// What all variables of ours begin with.
const OURS: &str = "PENSTOCK_";

/// Variables that are read elsewhere than here.
const COMMANDS: [&str; 2] = ["PENSTOCK_URL", "PENSTOCK_TOKEN"];

/// Variables that tests and scripts of the repository set; services that they start inherit them.
const TESTS: [&str; 20] = [
    "PENSTOCK_BIN",
    "PENSTOCK_CASES",
    "PENSTOCK_HEAL_RECORDS",
    "PENSTOCK_HEAL_REPOS",
    "PENSTOCK_HEAL_TEST_ROLE",
    "PENSTOCK_KILLS",
    "PENSTOCK_KSTATUS",
    "PENSTOCK_LETTER_CASES",
    "PENSTOCK_LOCAL_TEST_ROLE",
    "PENSTOCK_MEMORY_ROUNDS",
    "PENSTOCK_MESSAGES",
    "PENSTOCK_OPERATOR_TEST_ROLE",
    "PENSTOCK_PAGE_TESTS",
    "PENSTOCK_PIPELINES",
    "PENSTOCK_SCHEMA_TOOL",
    "PENSTOCK_SEED",
    "PENSTOCK_SHOTS",
    "PENSTOCK_SITUATIONS",
    "PENSTOCK_SLACK",
    "PENSTOCK_TELEMETRY_TEST_ROLE",
];

/// A variable of the environment that begins like a setting and is none: it has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownVariable {
    /// Its name.
    pub name: String,
    /// The variable whose name is most like it.
    pub nearest: String,
}

impl Layers {
    /// Lists the variables that begin like settings and are none; those that are empty count as not set.
    #[must_use]
    pub fn unknown_variables(&self) -> Vec<UnknownVariable> {
        unknown_variables(self.variables())
    }
}

/// Lists those of some variables, with their values, that begin with `PENSTOCK_` and are nobody's.
fn unknown_variables<'a>(variables: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<UnknownVariable> {
    let ours: Vec<_> = variables.filter(|(name, _)| name.starts_with(OURS)).collect();
    if ours.is_empty() {
        return Vec::new();
    }
    let spellings = spellings();
    let is_known =
        |name: &str| spellings.iter().any(|spelling| spelling.means == name) || is_older(name) || TESTS.contains(&name);
    ours.into_iter()
        .filter(|(name, value)| !is_known(name) && !is_service_link(name, value))
        .map(|(name, _)| UnknownVariable { name: name.to_owned(), nearest: nearest(name, &spellings) })
        .collect()
}

/// What somebody may write, and the variable that he means by it.
struct Spelling {
    written: String,
    means: String,
}

/// Every variable, as it is; and with an older name behind our beginning, or without its section.
fn spellings() -> Vec<Spelling> {
    let mut all: Vec<Spelling> =
        COMMANDS.iter().map(|name| Spelling { written: (*name).to_owned(), means: (*name).to_owned() }).collect();
    let catalog = Settings::catalog();
    // A whole name goes before a part of another one.
    all.extend(
        catalog
            .iter()
            .map(|field| field.environment_name())
            .map(|name| Spelling { written: name.clone(), means: name }),
    );
    // Of two with one name that of the healer is meant less often.
    let (healer, others): (Vec<_>, Vec<_>) = catalog.iter().partition(|field| field.path.starts_with("heal."));
    for field in others.into_iter().chain(healer) {
        let older = field.older_names.iter().map(|name| format!("{OURS}{name}"));
        let bare = field.path.split_once('.').map(|(_, name)| environment_name(name));
        all.extend(older.chain(bare).map(|written| Spelling { written, means: field.environment_name() }));
    }
    all
}

/// An older name may itself begin with ours.
fn is_older(name: &str) -> bool {
    Settings::catalog().iter().any(|field| field.older_names.contains(&name))
}

/// Finds the variable that the fewest keys were missed of; a beginning that is right counts for half a key a letter.
fn nearest(name: &str, spellings: &[Spelling]) -> String {
    let name = name.to_ascii_uppercase();
    let found = spellings.iter().min_by_key(|spelling| {
        let beginning = name.bytes().zip(spelling.written.bytes()).take_while(|(a, b)| a == b).count();
        (2 * strsim::damerau_levenshtein(&name, &spelling.written) + name.len()).saturating_sub(beginning)
    });
    found.map(|spelling| spelling.means.clone()).unwrap_or_default()
}

/// Whether Kubernetes put a variable into the pod for a Service that is called `penstock-…`: `PENSTOCK_OPERATOR_SERVICE_HOST`,
/// `…_SERVICE_PORT_HTTP`, `…_PORT`, `…_PORT_6379_TCP_ADDR`.
/// <https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables>
fn is_service_link(name: &str, value: &str) -> bool {
    let is_port = |text: &str| text.parse::<u16>().is_ok();
    let is_address = |text: &str| text.parse::<IpAddr>().is_ok();
    let is_protocol = |text: &str| ["tcp", "udp", "sctp"].contains(&text);
    let is_url = |text: &str| text.split_once("://").is_some_and(|(scheme, _)| is_protocol(scheme));
    if name.ends_with("_SERVICE_HOST") {
        return is_address(value);
    }
    if name.ends_with("_SERVICE_PORT") || name.contains("_SERVICE_PORT_") {
        return is_port(value);
    }
    let is_number = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    let Some((_, behind)) = name.split_once("_PORT_").filter(|(_, behind)| is_number(behind)) else {
        return name.ends_with("_PORT") && is_url(value);
    };
    match behind.split('_').collect::<Vec<_>>()[..] {
        [port, protocol] => is_port(port) && is_protocol(&protocol.to_ascii_lowercase()) && is_url(value),
        [port, protocol, what] if is_port(port) && is_protocol(&protocol.to_ascii_lowercase()) => match what {
            "PROTO" => is_protocol(value),
            "PORT" => is_port(value),
            "ADDR" => is_address(value),
            _ => false,
        },
        _ => false,
    }
}

impl fmt::Display for UnknownVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, nearest } = self;
        write!(f, "{name} is not a setting and has no effect; did you mean {nearest}?")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn unknown(name: &str, value: &str) -> Option<String> {
        unknown_variables([(name, value)].into_iter()).pop().map(|unknown| unknown.nearest)
    }

    #[test]
    fn a_variable_that_is_no_setting_is_named_with_the_one_that_was_meant() {
        for (written, meant) in [
            // A letter too few, too many, another, or two exchanged.
            ("PENSTOCK_REDIS_UR", "PENSTOCK_REDIS_URL"),
            ("PENSTOCK_RELAY_URL", "PENSTOCK_RELAY_URLS"),
            ("PENSTOCK_REDIS_KEYPREFIX", "PENSTOCK_REDIS_KEY_PREFIX"),
            ("PENSTOCK_INGEST_BATCH_EVENT", "PENSTOCK_INGEST_BATCH_EVENTS"),
            ("PENSTOCK_WORKER_BATCHSIZE", "PENSTOCK_WORKER_BATCH_SIZE"),
            ("PENSTOCK_POSTGRES_POOLSIZE", "PENSTOCK_POSTGRES_POOL_SIZE"),
            ("PENSTOCK_TOKNE", "PENSTOCK_TOKEN"),
            ("PENSTOCK_URI", "PENSTOCK_URL"),
            // Plural, or another section.
            ("PENSTOCK_WORKERS_BATCH_SIZE", "PENSTOCK_WORKER_BATCH_SIZE"),
            ("PENSTOCK_MESSAGES_ENABLED", "PENSTOCK_MESSAGE_BUFFER_ENABLED"),
            // Without its section.
            ("PENSTOCK_ADMIN_TOKEN", "PENSTOCK_DASHBOARD_ADMIN_TOKEN"),
            ("PENSTOCK_BATCH_EVENTS", "PENSTOCK_INGEST_BATCH_EVENTS"),
            ("PENSTOCK_KEY_PREFIX", "PENSTOCK_REDIS_KEY_PREFIX"),
            // Our beginning before an older name.
            ("PENSTOCK_DATABASE_URL", "PENSTOCK_POSTGRES_URL"),
            ("PENSTOCK_LOG_LEVEL", "PENSTOCK_TELEMETRY_LOG_LEVEL"),
            ("PENSTOCK_ADMIN_ADDRESS", "PENSTOCK_TELEMETRY_ADMIN_ADDRESS"),
            ("PENSTOCK_CONSUMER_ID", "PENSTOCK_WORKER_CONSUMER_ID"),
            // As the settings file has it.
            ("PENSTOCK_redis_streamKey", "PENSTOCK_REDIS_STREAM_KEY"),
            ("PENSTOCK_INGEST_batch_events", "PENSTOCK_INGEST_BATCH_EVENTS"),
        ] {
            assert_eq!(unknown(written, "x").as_deref(), Some(meant), "{written}");
        }
    }

    #[test]
    fn what_somebody_reads_is_no_unknown_variable() {
        for field in Settings::catalog() {
            assert_eq!(unknown(&field.environment_name(), "x"), None);
            for name in field.older_names {
                assert_eq!(unknown(name, "x"), None);
            }
        }
        for name in COMMANDS.iter().chain(&TESTS) {
            assert_eq!(unknown(name, "x"), None);
        }
        // Other programs' are no business of ours.
        for name in ["PATH", "PENSTOCKS", "MY_PENSTOCK_REDIS_URI", "REDIS_URI"] {
            assert_eq!(unknown(name, "x"), None);
        }
    }

    #[test]
    fn what_kubernetes_injects_for_a_service_is_no_unknown_variable() {
        for (name, value) in [
            ("PENSTOCK_SERVICE_HOST", "10.96.0.7"),
            ("PENSTOCK_SERVICE_PORT", "8000"),
            ("PENSTOCK_OPERATOR_SERVICE_HOST", "10.96.0.7"),
            ("PENSTOCK_OPERATOR_SERVICE_HOST", "fd00::7"),
            ("PENSTOCK_OPERATOR_SERVICE_PORT", "8080"),
            ("PENSTOCK_OPERATOR_SERVICE_PORT_RECOMMENDATIONS", "8080"),
            ("PENSTOCK_OPERATOR_SERVICE_PORT_HTTP_METRICS", "9464"),
            ("PENSTOCK_OPERATOR_PORT", "tcp://10.96.0.7:8080"),
            ("PENSTOCK_REDIS_PORT", "tcp://10.96.0.5:6379"),
            ("PENSTOCK_REDIS_PORT_6379_TCP", "tcp://10.96.0.5:6379"),
            ("PENSTOCK_REDIS_PORT_6379_TCP_PROTO", "tcp"),
            ("PENSTOCK_REDIS_PORT_6379_TCP_PORT", "6379"),
            ("PENSTOCK_REDIS_PORT_6379_TCP_ADDR", "10.96.0.5"),
            ("PENSTOCK_RELAY_PORT_53_UDP_ADDR", "10.96.0.9"),
            ("PENSTOCK_RELAY_PORT_53_SCTP", "sctp://10.96.0.9:53"),
        ] {
            assert_eq!(unknown(name, value), None, "{name}={value}");
        }
        // It never writes these.
        for (name, value) in [
            ("PENSTOCK_OPERATOR_SERVICE_HOST", "operator.example.com"),
            ("PENSTOCK_OPERATOR_SERVICE_PORT", "http"),
            ("PENSTOCK_WORKER_PORT", "8000"),
            ("PENSTOCK_REDIS_PORT_6379_TCP", "6379"),
            ("PENSTOCK_REDIS_PORT_REDIS_TCP_ADDR", "10.96.0.5"),
        ] {
            assert!(unknown(name, value).is_some(), "{name}={value}");
        }
    }

    /// Finds every name with our beginning in a text; one that is cut short, such as `PENSTOCK_…`, is none.
    fn names(text: &str) -> impl Iterator<Item = &str> {
        let is_part = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        text.match_indices(OURS)
            .filter(move |(at, _)| !text[..*at].ends_with(is_part))
            .map(move |(at, _)| text[at..].split(|c| !is_part(c)).next().unwrap())
            .filter(|name| !name.ends_with('_'))
    }

    fn read(place: &Path, unknown_names: &mut Vec<String>) {
        if place.is_dir() {
            for entry in fs::read_dir(place).unwrap() {
                let entry = entry.unwrap();
                if !["node_modules", "target", "dist"].contains(&entry.file_name().to_str().unwrap()) {
                    read(&entry.path(), unknown_names);
                }
            }
        } else if let Ok(text) = fs::read_to_string(place) {
            let nobodys = names(&text).filter(|name| unknown(name, "x").is_some());
            unknown_names.extend(nobodys.map(|name| format!("{}: {name}", place.display())));
        }
    }

    #[test]
    fn names_are_found_whole() {
        let text = "`PENSTOCK_URL=x` MY_PENSTOCK_Y, PENSTOCK_… (PENSTOCK_A_B2) PENSTOCK_REDIS_*";
        assert_eq!(names(text).collect::<Vec<_>>(), ["PENSTOCK_URL", "PENSTOCK_A_B2"]);
    }

    #[test]
    fn every_variable_that_the_repository_names_is_somebodys() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut unknown_names = Vec::new();
        for place in ["Dockerfile", "Makefile", "README.md", "charts", "crates", "deploy", "docs", "fuzz", "scripts"] {
            read(&root.join(place), &mut unknown_names);
        }
        // The tables above name what is wrong on purpose.
        unknown_names.retain(|found| !found.contains("settings/unknown.rs") && !found.contains("unknown_variables.rs"));
        assert!(unknown_names.is_empty(), "correct these, or add them to TESTS or COMMANDS: {unknown_names:#?}");
    }
}
