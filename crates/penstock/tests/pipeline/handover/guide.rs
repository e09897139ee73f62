//! `docs/migrating.md` as a script: its commands, in its order, in one shell, between players of the original's processes.
//!
//! `docker compose` is the test itself, and `penstock` the binary under test. What the guide says that a command shows is
//! waited for, as a reader would: the command is run until it does.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::player::{Player, Theirs};
use super::processor::{self, Kind};
use super::python;
use crate::rig::binary;

const GUIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/migrating.md");

/// What the guide calls besides `docker` and `penstock`.
const PROGRAMS: [&str; 7] = ["bash", "redis-cli", "psql", "pg_dump", "createdb", "dropdb", "curl"];

/// How long one command may take, and how long what it must show may be waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// The exit code of a doctor who only warns.
const WARNED: i32 = 1;

/// The way there, or the way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Forth,
    Back,
}

/// What a command that holds some words must show.
pub(crate) struct Shows {
    pub(crate) words: &'static str,
    pub(crate) what: &'static str,
    pub(crate) is: fn(&str) -> bool,
}

/// The commands of the guide: by heading, on the way there or back, in order.
pub(crate) struct Guide {
    commands: Vec<(String, Way, String)>,
}

/// A shell in which the guide is followed.
pub(crate) struct Shell {
    child: Child,
    input: ChildStdin,
    folder: PathBuf,
    commands: usize,
    compose: Compose,
}

/// The processes of the original's compose file.
pub(crate) struct Compose {
    services: Arc<Mutex<Services>>,
    port: u16,
    serving: AbortHandle,
}

struct Services {
    theirs: Arc<Theirs>,
    running: BTreeMap<String, Player>,
}

// === impl Guide ===

impl Guide {
    /// Reads it; the dashboard's port is this one instead of its own, and the admin servers' are any.
    pub(crate) fn read(dashboard: u16) -> Self {
        let text = fs::read_to_string(GUIDE).unwrap();
        let text = text.replace(":8000", &format!(":{dashboard}")).replace(":9464", ":0").replace(":9465", ":0");
        let (mut heading, mut way, mut block) = (String::new(), Way::Forth, None::<String>);
        let mut commands = Vec::new();
        for line in text.lines() {
            let line = line.trim_end();
            if line.trim_start() == "```" {
                match block.take() {
                    Some(block) => {
                        let below = |command| (heading.clone(), way, command);
                        commands.extend(split(&block).into_iter().map(below));
                    }
                    None => block = Some(String::new()),
                }
            } else if let Some(block) = &mut block {
                // Those in a list are indented; nothing else begins with as much.
                *block += line.strip_prefix("   ").unwrap_or(line);
                *block += "\n";
            } else if let Some(title) = line.strip_prefix("## ") {
                (heading, way) = (title.to_owned(), Way::Forth);
            } else if line.starts_with("**Roll back**") {
                way = Way::Back;
            }
        }
        Self { commands }
    }

    /// The commands below a heading that begins so.
    pub(crate) fn commands(&self, heading: &str, way: Way) -> Vec<&str> {
        let below = self.commands.iter().filter(|(title, along, _)| title.starts_with(heading) && *along == way);
        let commands: Vec<_> = below.map(|(_, _, command)| command.as_str()).collect();
        assert!(!commands.is_empty(), "the guide has no commands below {heading:?}, {way:?}");
        commands
    }
}

/// Splits a block into commands: lines, but for text in quotes or for another program, which goes over several.
fn split(block: &str) -> Vec<String> {
    if block.contains("<<") {
        return vec![block.to_owned()];
    }
    let (mut commands, mut command) = (Vec::new(), String::new());
    for line in block.lines() {
        command += line;
        if command.matches('"').count() % 2 == 0 && !command.ends_with('\\') {
            commands.push(std::mem::take(&mut command));
        } else {
            command += "\n";
        }
    }
    commands
}

/// A program that the guide calls and that is not installed.
pub(crate) fn missing_program() -> Option<&'static str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    PROGRAMS.into_iter().find(|program| !std::env::split_paths(&path).any(|folder| folder.join(program).exists()))
}

// === impl Shell ===

impl Shell {
    /// Starts one with these variables, in a folder of its own.
    pub(crate) async fn start(folder: &Path, variables: &BTreeMap<String, String>, theirs: &Arc<Theirs>) -> Self {
        let (folder, compose) = (folder.to_owned(), Compose::start(theirs).await);
        let programs = folder.join("bin");
        fs::create_dir_all(&programs).unwrap();
        symlink(binary(), programs.join("penstock")).unwrap();
        let docker = format!(
            "#!/bin/bash\nexec 3<>/dev/tcp/127.0.0.1/{}\necho \"$*\" >&3\nread -r answer <&3\necho \"$answer\"\n[ \"$answer\" = done ]\n",
            compose.port
        );
        fs::write(programs.join("docker"), docker).unwrap();
        fs::set_permissions(programs.join("docker"), fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("bash");
        command.arg("--norc").current_dir(&folder).env_clear().env("PATH", path).env("HOME", &folder);
        command.envs(variables);
        let mut child = command.stdin(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        // What it starts in the background goes with it, whatever becomes of the test.
        input.write_all(b"set -m; trap 'kill $(jobs -p) 2>/dev/null' EXIT\n").await.unwrap();
        Self { child, input, folder, commands: 0, compose }
    }

    pub(crate) fn compose(&self) -> &Compose {
        &self.compose
    }

    /// Follows these commands. Each must succeed; each of `shows` is what the next command with its words must show.
    pub(crate) async fn follow(&mut self, commands: &[&str], shows: &[Shows]) {
        let mut left: Vec<&Shows> = shows.iter().collect();
        for command in commands {
            let shows = left.iter().position(|shows| command.contains(shows.words)).map(|at| left.remove(at));
            let deadline = Instant::now() + PATIENCE;
            loop {
                let (code, said) = self.run(command).await;
                let succeeded = code == 0 || command.contains("penstock doctor") && code == WARNED;
                let what = shows.filter(|shows| !(shows.is)(&said)).map_or("success", |shows| shows.what);
                if succeeded && what == "success" {
                    break;
                }
                // What starts or ends something is not done twice.
                let again = shows.is_some() && Instant::now() < deadline;
                assert!(again, "{command}\nmust show {what}, ended with {code} and says\n{said}");
                sleep(Duration::from_millis(200)).await;
            }
        }
        let left: Vec<_> = left.iter().map(|shows| shows.words).collect();
        assert!(left.is_empty(), "the guide no longer has a command with {left:?}");
    }

    /// Runs a command; returns its exit code, and what it said until then.
    pub(crate) async fn run(&mut self, command: &str) -> (i32, String) {
        self.commands += 1;
        let file = |kind: &str| self.folder.join(format!("{:04}.{kind}", self.commands));
        let (said, code) = (file("out"), file("code"));
        let (to, done) = (said.display(), code.display());
        let line = format!("{{\n{command}\n}} >{to} 2>&1 </dev/null; echo $? >{done}.new; mv {done}.new {done}\n");
        fs::write(file("command"), command).unwrap();
        self.input.write_all(line.as_bytes()).await.unwrap();
        let deadline = Instant::now() + PATIENCE;
        while !code.exists() {
            assert!(Instant::now() < deadline, "{command}\ndoes not end");
            assert!(self.child.try_wait().unwrap().is_none(), "the shell ended at\n{command}");
            sleep(Duration::from_millis(20)).await;
        }
        let code = fs::read_to_string(code).unwrap().trim().parse().unwrap();
        (code, fs::read_to_string(said).unwrap())
    }

    /// Ends it, and with it what it started.
    pub(crate) async fn end(mut self) {
        self.run("kill $(jobs -p) 2>/dev/null; wait").await;
        drop(self.input);
        self.child.wait().await.unwrap();
    }
}

// === impl Compose ===

impl Compose {
    async fn start(theirs: &Arc<Theirs>) -> Self {
        let services = Services { theirs: Arc::clone(theirs), running: BTreeMap::new() };
        let services = Arc::new(Mutex::new(services));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answering = Arc::clone(&services);
        let serving = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                answer(socket, &answering).await;
            }
        });
        Self { services, port, serving: serving.abort_handle() }
    }

    /// Starts a service, as `docker compose up` does.
    pub(crate) async fn up(&self, service: &str) {
        assert_eq!(self.services.lock().await.obey(&format!("compose start {service}")).await, "done");
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(socket: TcpStream, services: &Mutex<Services>) {
    let mut socket = BufReader::new(socket);
    let mut command = String::new();
    if socket.read_line(&mut command).await.is_ok() {
        let answer = services.lock().await.obey(command.trim()).await;
        let _ = socket.write_all(format!("{answer}\n").as_bytes()).await;
    }
}

impl Services {
    async fn obey(&mut self, command: &str) -> &'static str {
        match command.split(' ').collect::<Vec<_>>()[..] {
            ["compose", "stop", service] => {
                if let Some(player) = self.running.remove(service) {
                    player.terminate().await;
                }
            }
            ["compose", "start", service] => {
                let player = match service {
                    // The second reader and writer, which must be stopped and does nothing here.
                    "python-backfill-worker" => Player::start("the backfill worker", |stop| stop.cancelled_owned()),
                    "python-firehose" => python::start(&self.theirs),
                    "python-worker" => processor::start(&self.theirs, Kind::Python),
                    _ => return "no such service",
                };
                self.running.insert(service.to_owned(), player);
            }
            _ => return "no such command",
        }
        "done"
    }
}
