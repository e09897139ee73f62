use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use penstock_local::RedisOptions;
use penstock_local::testing::{TestRedis, unpacked};

use super::*;
use crate::keys::{KeyPrefix, Names};
use crate::settings::Layers;

const MANUAL: &str = include_str!("../../../../docs/operations.md");

fn settings(url: &str) -> Settings {
    let layers = Layers::default().flag("redis.url", url).flag("redis.keyPrefix", "ps:");
    Settings::load(&layers.flag("relay.urls", "wss://relay.test")).unwrap()
}

async fn told(admin: &Client, user: &str, rules: &[String]) {
    let command = fred::types::CustomCommand::new_static("ACL", None, false);
    let words = ["SETUSER", user, "reset", "on", ">hunter2"].map(str::to_owned);
    let words: Vec<String> = words.into_iter().chain(rules.iter().cloned()).collect();
    let () = admin.custom(command, words).await.unwrap();
}

/// Each part may do all that it does with the rules of the manual; without any one of them exactly that one is named.
async fn each_rule_that_is_missing_is_named(options: RedisOptions) {
    let redis = TestRedis::start_with(options).await.unwrap();
    let settings = settings(&redis.url());
    let admin = crate::redis::connect(&settings).await.unwrap();
    for part in Part::ALL.into_iter().filter(|part| *part != Part::Doctor) {
        let rules = part.rules(&settings.keys);
        told(&admin, "u", &rules).await;
        let url = redis.url().replace("redis://", "redis://u:hunter2@");
        let client = crate::redis::connect(&self::settings(&url)).await.unwrap();
        assert_eq!(missing(&client, &settings.keys, &[part]).await.unwrap(), Missing::default(), "{part:?}");
        let (needed, _) = part.commands();
        for (at, rule) in rules.iter().enumerate() {
            let command = rule.strip_prefix('+');
            if rule.starts_with(['-', 'r'])
                || command
                    .is_some_and(|command| !needed.contains(&command) && !["publish", "subscribe"].contains(&command))
                || rule.contains("atproto")
            {
                continue;
            }
            let mut fewer = rules.clone();
            fewer.remove(at);
            told(&admin, "u", &fewer).await;
            let found = missing(&client, &settings.keys, &[part]).await.unwrap();
            let is_named = found.needed.contains(rule)
                || found.channels.iter().any(|channel| channel.split(' ').any(|word| word == rule));
            assert!(is_named, "{part:?} without {rule}: {found:?}");
            assert_eq!(
                found.needed.is_empty(),
                rule.starts_with('&') || matches!(command, Some("publish" | "subscribe"))
            );
        }
    }
}

#[tokio::test]
async fn each_rule_that_is_missing_is_named_by_redis_7() {
    each_rule_that_is_missing_is_named(RedisOptions::default()).await;
}

#[tokio::test]
async fn each_rule_that_is_missing_is_named_by_newer_servers() {
    for name in ["redis-8", "valkey-8", "valkey-9"] {
        if let Some(programs) = unpacked(name) {
            let options = RedisOptions { programs: Some(programs), ..RedisOptions::default() };
            each_rule_that_is_missing_is_named(options).await;
        }
    }
}

#[test]
fn names_that_settings_give_are_in_the_rules_as_they_are() {
    let names = Names { stream: Some("my*stream".into()), ..Names::default() };
    let keys = Keys::new(KeyPrefix::new("p[1]:").unwrap(), names);
    let rules = Part::Ingest.rules(&keys);
    for rule in [r"~p\[1\]:firehose:*", r"~my\*stream", r"~my\*stream:bulk", r"&p\[1\]:firehose:events:broadcast"] {
        assert!(rules.contains(&rule.to_owned()), "{rule} is not among {rules:?}");
    }
    assert!(!Part::Worker.rules(&Keys::default()).contains(&"~firehose:events".to_owned()), "the pattern has it");
}

#[test]
fn the_manual_has_the_rules_of_each_part() {
    let rules = Part::ALL.map(|part| (part.name(), part.rules(&Keys::default()).join(" ")));
    let lacking: Vec<_> = rules
        .iter()
        .filter(|(_, rules)| !MANUAL.contains(rules))
        .map(|(part, rules)| format!("{part}: {rules}"))
        .collect();
    assert!(lacking.is_empty(), "docs/operations.md lacks\n{}", lacking.join("\n"));
}

fn scripts(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            scripts(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "lua") {
            found.push(path);
        }
    }
}

/// Lists the commands of a script, as rules name them.
fn commands_of(text: &str) -> BTreeSet<String> {
    let calls = ["redis.call('", "redis.pcall('"].into_iter().flat_map(|call| text.split(call).skip(1));
    calls
        .map(|rest| {
            let mut words = rest.split('\'');
            let command = words.next().unwrap().to_lowercase();
            match command.as_str() {
                "xinfo" | "xgroup" | "memory" => format!("{command}|{}", words.nth(1).unwrap().to_lowercase()),
                _ => command,
            }
        })
        .collect()
}

#[test]
fn each_command_of_a_script_is_among_the_rules_of_its_part() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (folder, parts) in [
        ("ingest/src", &[Part::Ingest][..]),
        ("worker/src/consumer", &[Part::Worker]),
        ("worker/src/messages", &[Part::Worker, Part::MessageBuffer]),
        ("dashboard/src", &[Part::Dashboard]),
        ("autoscale/src", &[Part::Operator]),
        ("core/src", &[Part::Ingest]),
    ] {
        let mut found = Vec::new();
        scripts(&crates.join(folder), &mut found);
        assert!(!found.is_empty(), "{folder} has no scripts");
        for script in found {
            for command in commands_of(&fs::read_to_string(&script).unwrap()) {
                let is_known = parts.iter().any(|part| {
                    let (needed, optional) = part.commands();
                    let channels = part.rights().channels.iter().map(|(command, _)| *command);
                    needed.iter().chain(optional).copied().chain(channels).any(|known| known == command)
                });
                assert!(is_known, "{} runs {command}, which no rule of {parts:?} allows", script.display());
            }
        }
    }
}
