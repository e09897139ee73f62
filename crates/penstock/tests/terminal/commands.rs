//! What commands print: completions, manual pages, settings, and how far a migration has come.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use penstock_local::testing::{TempFolder, fresh_database};
use serde_json::Value;

use super::{Terminal, binary, run};

fn printed(args: &[&str]) -> String {
    let done = run(args, &[]);
    assert!(done.status.success() && done.stderr.is_empty(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// A variable of ours, in parts: each that the repository spells out must be a setting.
fn ours(end: &str) -> String {
    format!("PENSTOCK_{end}")
}

/// Whether a program is on this machine; without it a test cannot tell.
fn is_there(program: &str) -> bool {
    let there = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap().status.success();
    if !there {
        println!("skipping {program}: it is not installed");
    }
    there
}

#[test]
fn completions_of_each_shell_know_every_command() {
    let help = printed(&["--help"]);
    let commands = help.split_once("Commands:\n").unwrap().1.lines().take_while(|line| !line.is_empty());
    let commands: Vec<&str> = commands.map(|line| line.split_whitespace().next().unwrap()).collect();
    assert!(commands.len() > 18 && commands.contains(&"completions"), "{commands:?}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = printed(&["completions", shell]);
        for command in commands.iter().chain(&["connect-timeout", "token-file"]) {
            assert!(script.contains(command), "{shell}: {command}");
        }
        if ["bash", "zsh", "fish"].contains(&shell) && is_there(shell) {
            let folder = TempFolder::new().unwrap();
            let file = folder.path().join("completions");
            fs::write(&file, script).unwrap();
            let checked = Command::new(shell).arg("-n").arg(&file).output().unwrap();
            assert!(checked.status.success(), "{shell}: {}", String::from_utf8_lossy(&checked.stderr));
        }
    }
    let completed = format!(
        "source <({} completions bash); COMP_WORDS=(penstock mig); COMP_CWORD=1; _penstock penstock mig penstock; echo \"${{COMPREPLY[@]}}\"",
        binary().display()
    );
    let done = Command::new("bash").args(["-c", &completed]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&done.stdout).trim(), "migrate", "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(run(&["completions", "tcsh"], &[]).status.code(), Some(64));
}

#[test]
fn each_command_has_a_manual_page_with_its_examples() {
    let folder = TempFolder::new().unwrap();
    let pages = folder.path().join("man1");
    printed(&["man", pages.to_str().unwrap()]);
    let mut names: Vec<_> = fs::read_dir(&pages).unwrap().map(|page| page.unwrap().path()).collect();
    names.sort();
    let has = |name: &str| names.iter().any(|page| page.file_name().is_some_and(|file| file == name));
    for name in
        ["penstock.1", "penstock-migrate.1", "penstock-log-level.1", "kubectl-penstock.1", "kubectl-penstock-report.1"]
    {
        assert!(has(name), "{name} is not in {names:?}");
    }
    let is_checked = is_there("groff");
    for page in &names {
        let text = fs::read_to_string(page).unwrap();
        assert!(text.contains("Examples:"), "{}", page.display());
        if is_checked {
            let checked =
                Command::new("groff").args(["-man", "-Tutf8", "-z", "-ww", "-Kutf8"]).arg(page).output().unwrap();
            let said = String::from_utf8_lossy(&checked.stderr);
            assert!(checked.status.success() && said.is_empty(), "{}: {said}", page.display());
        }
    }
    assert!(printed(&["man"]).starts_with(".ie"), "without a folder the page is printed");
    let refused = run(&["man", "/proc/nowhere"], &[]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(said.contains("/proc/nowhere"), "{said}");
}

#[test]
fn settings_are_data_on_standard_output_and_warnings_are_beside_it() {
    let misspelled = ours("REDIS_UR");
    let done = run(&["settings", "--format", "json"], &[(&misspelled, "redis://:hunter2@h")]);
    let all: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert!(all.as_array().unwrap().len() > 90);
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(
        said,
        format!("penstock: {misspelled} is not a setting and has no effect; did you mean PENSTOCK_REDIS_URL?\n")
    );
    assert!(printed(&["settings"]).starts_with("SETTING "));
    assert!(printed(&["settings", "--format", "md"]).starts_with("| setting |"));
    assert_eq!(run(&["settings", "--format", "xml"], &[]).status.code(), Some(64));
}

#[test]
fn a_service_warns_of_a_variable_that_is_no_setting_at_its_start() {
    let (misspelled, injected) = (ours("LOG_LEVEL"), ours("OPERATOR_SERVICE_HOST"));
    let mut service = Command::new(binary())
        .args(["replay", "--address", "127.0.0.1:0"])
        .env_clear()
        .envs([(misspelled.as_str(), "debug"), (injected.as_str(), "10.0.0.1"), ("PENSTOCK_URL", "http://h")])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(service.stderr.take().unwrap()).lines().map(|line| line.unwrap());
    let first: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
    let second = lines.next().unwrap();
    service.kill().unwrap();
    service.wait().unwrap();
    assert_eq!((&first["level"], &first["variable"]), (&Value::from("warn"), &Value::from(misspelled)), "{first}");
    assert_eq!(first["did_you_mean"], "PENSTOCK_TELEMETRY_LOG_LEVEL", "{first}");
    assert!(!second.contains("PENSTOCK_"), "what Kubernetes sets is no mistake: {second}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_says_what_it_does_to_a_terminal_and_to_a_log() {
    let url = fresh_database().await.unwrap();
    let variables = [("DATABASE_URL", url.as_str())];
    let plan = run(&["migrate", "--plan"], &variables);
    let text = String::from_utf8(plan.stdout).unwrap();
    assert!(plan.status.success() && text.starts_with("2. create missing tables of the AppView: "), "{text}");
    assert!(text.contains("locks only new tables") && text.contains("penstock.dead_letters"), "{text}");
    // It has changed nothing, and says the same again.
    assert_eq!(String::from_utf8(run(&["migrate", "--dry-run"], &variables).stdout).unwrap(), text);

    let terminal = Terminal::open(&["migrate"], &variables, (200, 50));
    terminal.until_shown("migrated to schema ");
    let shown = terminal.shown();
    assert_eq!(terminal.ended().code(), Some(0));
    for part in
        ["2. create missing tables of the AppView: done in ", "3. create or complete Penstock's own tables: done in "]
    {
        assert!(shown.contains(part), "{shown}");
    }
    let terminal = Terminal::open(&["migrate", "--recount"], &variables, (200, 50));
    terminal.until_shown("9. recompute counts: done in ");
    assert!(
        terminal.shown().contains("nothing to do: the database has the tables of this version"),
        "{}",
        terminal.shown()
    );
    assert_eq!(terminal.ended().code(), Some(0));
    assert_eq!(
        String::from_utf8(run(&["migrate", "--plan"], &variables).stdout).unwrap(),
        "nothing to do: the database has the tables of this version\n"
    );

    let other = fresh_database().await.unwrap();
    let logged = run(&["migrate", "--recount"], &[("DATABASE_URL", other.as_str())]);
    assert!(logged.status.success() && logged.stdout.is_empty());
    let lines: Vec<Value> =
        String::from_utf8(logged.stderr).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let said = |message: &str| lines.iter().filter(|line| line["msg"] == message).count();
    assert_eq!(
        (said("migration step planned"), said("migration step done"), said("database migrated")),
        (2, 3, 1),
        "{lines:#?}"
    );
    assert!(lines.iter().all(|line| !line.to_string().contains('\u{1b}')), "{lines:#?}");

    let away = run(&["migrate"], &[("DATABASE_URL", "postgres://u:hunter2@127.0.0.1:9/d")]);
    let said = String::from_utf8(away.stderr).unwrap();
    assert_eq!(away.status.code(), Some(69));
    assert!(said.contains("127.0.0.1:9") && said.contains("Connection refused") && !said.contains("hunter2"), "{said}");
    assert_eq!(run(&["migrate", "--connect-timeout", "1ms"], &variables).status.code(), Some(64));
}
