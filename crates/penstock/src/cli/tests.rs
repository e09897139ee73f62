//! The help of every command.

use clap::{Command as Described, CommandFactory, Parser};
use penstock_core::settings::Layers;

use super::*;

/// Every command below one, itself first, with what it is called by.
fn all(command: &Described, called: &str) -> Vec<(String, String)> {
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let below = command.get_subcommands().flat_map(|below| all(below, &format!("{called} {}", below.get_name())));
    [(called.to_owned(), help)].into_iter().chain(below).collect()
}

/// The examples of a help, without what is said of them.
fn examples(help: &str) -> Vec<&str> {
    let (_, examples) = help.split_once("Examples:\n").unwrap_or_default();
    examples.lines().map(|line| line.trim_start().split("   ").next().unwrap().trim_end()).collect()
}

/// Cuts a line as a shell does, as far as our examples need it: variables, then words up to a pipe or a file.
fn words(example: &str) -> (Vec<(String, String)>, Vec<String>) {
    let mut words: Vec<String> = Vec::new();
    for word in example.split_whitespace() {
        if ["|", ">"].contains(&word) {
            break;
        }
        words.push(word.trim_matches('\'').to_owned());
    }
    let is_variable = |word: &&String| {
        word.split_once('=').is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
    };
    let many = words.iter().take_while(is_variable).count();
    let variables =
        words.drain(..many).map(|word| word.split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap());
    (variables.collect(), words)
}

#[test]
fn every_command_has_examples_that_work() {
    let mut seen = 0;
    for (called, help) in
        all(&Cli::command(), "penstock").into_iter().chain(all(&Plugin::command(), "kubectl penstock"))
    {
        let examples = examples(&help);
        assert!(!examples.is_empty(), "{called} has no example");
        for example in examples {
            let (variables, words) = words(example);
            assert!(
                called == "penstock"
                    || called == "kubectl penstock"
                    || words.join(" ").contains(&called)
                    || words.iter().any(|word| called.ends_with(&format!(" {word}"))),
                "{example} is no example of {called}"
            );
            let parsed = match words.first().map(String::as_str) {
                Some("kubectl") => Plugin::try_parse_from(&words[1..]).map(drop),
                Some("penstock") => Cli::try_parse_from(&words).map(drop),
                _ => panic!("{called}: {example}"),
            };
            parsed.unwrap_or_else(|error| panic!("{called}: {example}: {error}"));
            let unknown = Layers::default().environment(variables).unknown_variables();
            assert!(unknown.is_empty(), "{example}: {unknown:?}");
            seen += 1;
        }
    }
    assert!(seen > 40, "{seen}");
}

#[test]
fn every_command_says_its_exit_codes_and_variables() {
    let commands = Cli::command();
    let plugin = Plugin::command();
    for (called, help) in all(&commands, "penstock").into_iter().chain(all(&plugin, "kubectl penstock")) {
        let mut command = if called.starts_with("kubectl") { &plugin } else { &commands };
        for name in called.split(' ').skip(if called.starts_with("kubectl") { 2 } else { 1 }) {
            command = command.find_subcommand(name).unwrap();
        }
        let about = command.get_long_about().map(ToString::to_string).unwrap_or_default();
        assert!(help.contains("Exit codes: ") || about.contains("Exit codes: "), "{called}: exit codes");
        let says = help.contains("Environment: ") || called == "penstock run";
        assert!(says, "{called}: environment");
    }
}

#[test]
fn every_variable_that_help_names_is_somebodys() {
    for (called, help) in all(&Cli::command(), "penstock") {
        let names = help.split(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'));
        let ours = names.filter(|name| name.starts_with("PENSTOCK_") && name.len() > 9);
        let variables = ours.map(|name| (name.to_owned(), "x".to_owned()));
        let unknown = Layers::default().environment(variables).unknown_variables();
        assert!(unknown.is_empty(), "{called}: {unknown:?}");
    }
}
