//! Which servers a run uses: those of the command line and the settings file, else its own. The environment says nothing: what
//! stands there is meant for other programs, and may name a database that is nobody's to try things in.

use penstock_core::settings::{Field, Layers, Origin, Settings};

use crate::cli::{ReadFrom, Run};

/// One of the servers of a pipeline.
struct Server {
    name: &'static str,
    /// The flag that names it.
    flag: &'static str,
    /// The setting that the flag sets.
    setting: &'static str,
    /// The other settings of its address.
    others: &'static [&'static str],
}

const RELAY: Server = Server { name: "relay", flag: "--relay", setting: "relay.urls", others: &[] };
const REDIS: Server = Server {
    name: "Redis",
    flag: "--redis-url",
    setting: "redis.url",
    others: &["redis.host", "redis.port", "redis.password"],
};
const POSTGRES: Server = Server {
    name: "PostgreSQL",
    flag: "--database-url",
    setting: "postgres.url",
    others: &[
        "postgres.host",
        "postgres.port",
        "postgres.database",
        "postgres.user",
        "postgres.password",
        "postgres.passwordFile",
        "postgres.passwordCommand",
        "postgres.schema",
    ],
};

/// Where the servers come from: the words behind each address; none where it is one of our own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Origins {
    pub(super) relay: Option<String>,
    pub(super) redis: Option<String>,
    pub(super) postgres: Option<String>,
    /// A line for each server that the environment names in vain.
    pub(super) passed_over: Vec<String>,
}

/// Takes the addresses from the flags, and leaves the environment out of them.
pub(super) fn settle(mut layers: Layers, args: &Run) -> (Layers, Origins) {
    let mut passed_over = Vec::new();
    let flags = [(RELAY, &args.relay), (REDIS, &args.redis_url), (POSTGRES, &args.database_url)];
    let origins = flags.map(|(server, given)| {
        let fields: Vec<Field> = Settings::catalog()
            .into_iter()
            .filter(|field| field.path == server.setting || server.others.contains(&field.path))
            .collect();
        let variables: Vec<String> =
            fields.iter().flat_map(|field| layers.pass_over(field.path, field.older_names)).collect();
        let set = fields.iter().find_map(|field| set_by(&layers, field.path));
        let origin = given.as_ref().map(|_| server.flag.to_owned()).or(set);
        if let Some(url) = given {
            layers = layers.clone().flag(server.setting, url);
        }
        if origin.is_none() && !variables.is_empty() {
            passed_over.push(told(&server, &variables));
        }
        origin
    });
    if let Some(from) = args.from {
        layers = layers.flag("relay.start", if from == ReadFrom::Oldest { "oldest" } else { "live" });
    }
    let [relay, redis, postgres] = origins;
    (layers, Origins { relay, redis, postgres, passed_over })
}

/// Says who set a setting, if anybody did.
fn set_by(layers: &Layers, path: &str) -> Option<String> {
    match layers.origin(path, &[])? {
        Origin::Flag => Some(format!("--set {path}")),
        Origin::Default => None,
        origin @ (Origin::Environment(_) | Origin::File(_)) => Some(origin.to_string()),
    }
}

fn told(server: &Server, variables: &[String]) -> String {
    let Server { name, flag, .. } = server;
    format!("{} from the environment ignored; use {flag} to run against another {name}", variables.join(", "))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn settled(arguments: &[&str], variables: &[(&str, &str)], file: &str) -> (Layers, Origins) {
        let cli = Cli::try_parse_from(["penstock", "run"].iter().chain(arguments)).unwrap();
        let Command::Run(args) = &cli.command else { panic!("another command") };
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let layers = Layers::default().environment(variables).file("s.yaml", file).unwrap();
        settle(cli.set.iter().fold(layers, |layers, (path, value)| layers.flag(path, value)), args)
    }

    const SHELL: [(&str, &str); 12] = [
        ("DATABASE_URL", "postgres://u:hunter2@prod/app"),
        ("PENSTOCK_POSTGRES_URL", "postgres://u@prod/app"),
        ("DB_HOST", "prod"),
        ("DB_USER", "u"),
        ("DB_NAME", "app"),
        ("POSTGRES_PASSWORD", "hunter2"),
        ("REDIS_URL", "redis://prod"),
        ("REDIS_HOST", "prod"),
        ("REDIS_PORT", "7000"),
        ("REDIS_PASSWORD", "hunter2"),
        ("RELAY_URL", "wss://prod"),
        ("DB_POOL_SIZE", "9"),
    ];

    #[test]
    fn no_address_comes_from_the_environment_and_each_that_would_is_told() {
        let (layers, origins) = settled(&[], &SHELL, "");
        let settings = Settings::load(&layers).unwrap();
        assert!(settings.postgres.url.is_none() && settings.redis.url.is_none(), "{settings:?}");
        assert_eq!((settings.redis_url.expose(), settings.redis.password), ("redis://localhost:6379", None));
        assert_eq!(settings.relay.urls[0].to_string(), "wss://bsky.network", "the default");
        assert_eq!(settings.postgres.pool_size.get(), 9, "what is no address counts");
        assert_eq!((origins.relay, origins.redis, origins.postgres), (None, None, None));
        let [relay, redis, postgres] = &origins.passed_over[..] else { panic!("{:?}", origins.passed_over) };
        assert_eq!(relay, "RELAY_URL from the environment ignored; use --relay to run against another relay");
        assert!(
            redis.starts_with("REDIS_URL, REDIS_HOST, REDIS_PORT, REDIS_PASSWORD from the environment ignored"),
            "{redis}"
        );
        assert!(postgres.contains("DATABASE_URL") && postgres.contains("--database-url"), "{postgres}");
        assert!(!origins.passed_over.concat().contains("hunter2"));
    }

    #[test]
    fn flags_and_file_name_servers_and_are_named_in_turn() {
        let flags = ["--relay", "wss://r", "--redis-url", "redis://a", "--database-url", "postgres://u@h/d"];
        let (layers, origins) = settled(&flags, &SHELL, "");
        let settings = Settings::load(&layers).unwrap();
        let named = [
            settings.relay.urls[0].to_string(),
            settings.redis_url.to_string(),
            settings.postgres.url.unwrap().to_string(),
        ];
        assert_eq!(named, ["wss://r", "redis://a", "postgres://u@h/d"]);
        let words =
            |origins: &Origins| [&origins.relay, &origins.redis, &origins.postgres].map(|word| word.clone().unwrap());
        assert_eq!(words(&origins), ["--relay", "--redis-url", "--database-url"]);
        assert!(origins.passed_over.is_empty(), "what is in the environment is of no interest then");

        let (_, origins) =
            settled(&["--set", "redis.host=h", "--set", "relay.urls=r"], &[], "postgres: {url: 'postgres://u@h/d'}");
        assert_eq!(words(&origins), ["--set relay.urls", "--set redis.host", "s.yaml"]);
    }

    #[test]
    fn a_relay_is_read_live_unless_the_oldest_is_asked_for() {
        use penstock_core::settings::Start;
        let start = |arguments: &[&str]| Settings::load(&settled(arguments, &[], "").0).unwrap().relay.start;
        assert_eq!(start(&["--relay", "r"]), Start::Live);
        assert_eq!(start(&["--relay", "r", "--from", "live", "--set", "relay.start=oldest"]), Start::Live);
        assert_eq!(start(&["--relay", "r", "--from", "oldest"]), Start::Oldest);
    }
}
