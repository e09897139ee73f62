//! The real binary in a real terminal.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod commands;

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;
use penstock_local::testing::{TempFolder, TestRedis};

/// How long anything may take that a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

fn binary() -> PathBuf {
    std::env::var_os("PENSTOCK_BIN").map_or_else(|| env!("CARGO_BIN_EXE_penstock").into(), PathBuf::from)
}

fn cells(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap()
}

/// Runs the binary to its end, without a terminal.
fn run(args: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(binary());
    command.args(args).env_clear().envs(variables.iter().copied()).stdin(Stdio::null());
    command.output().unwrap()
}

/// A dashboard, an ingest and a relay; no worker.
struct Pipeline {
    url: String,
    services: Vec<Child>,
    _redis: TestRedis,
}

/// A process in a terminal of its own.
struct Terminal {
    child: Child,
    keyboard: File,
    /// What stands on the screen.
    screen: Arc<Mutex<vt100::Parser>>,
    /// Its end of the terminal, by which its settings are seen.
    inside: OwnedFd,
}

// === impl Pipeline ===

impl Pipeline {
    async fn start(variables: &[(&str, &str)]) -> Self {
        let redis = TestRedis::start().await.unwrap();
        let port = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (dashboard, relay) = (port(), port());
        let url = redis.url();
        let start = |args: &[&str]| {
            let mut command = Command::new(binary());
            command.args(args).env_clear().envs(variables.iter().copied());
            command.env("REDIS_URL", &url).env("ADMIN_ADDRESS", "127.0.0.1:0");
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        let address = format!("127.0.0.1:{relay}");
        let urls = format!("relay.urls=ws://{address}");
        let listen = format!("dashboard.address=127.0.0.1:{dashboard}");
        let services = vec![
            start(&["replay", "--address", &address, "--rate", "50"]),
            start(&["ingest", "--set", &urls]),
            start(&["dashboard", "--set", &listen]),
        ];
        Self { url: format!("http://127.0.0.1:{dashboard}"), services, _redis: redis }
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        for service in &mut self.services {
            let _ = service.kill();
            let _ = service.wait();
        }
    }
}

// === impl Terminal ===

impl Terminal {
    fn open(args: &[&str], variables: &[(&str, &str)], (columns, rows): (u16, u16)) -> Self {
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).unwrap();
        let side = || Stdio::from(pty.slave.try_clone().unwrap());
        let mut command = Command::new(binary());
        command.args(args).env_clear().env("TERM", "xterm").envs(variables.iter().copied());
        let child = command.stdin(side()).stdout(side()).stderr(side()).process_group(0).spawn().unwrap();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(cells(rows), cells(columns), 0)));
        let mut output = File::from(pty.master.try_clone().unwrap());
        let drawn = Arc::clone(&screen);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                drawn.lock().unwrap().process(&bytes[..count]);
            }
        });
        Self { child, keyboard: File::from(pty.master), screen, inside: pty.slave }
    }

    fn shown(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    fn until(&self, what: &str, is_so: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(&self.shown()) {
            assert!(Instant::now() < deadline, "not in time: {what}\n{}", self.shown());
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn until_shown(&self, part: &str) {
        self.until(part, |shown| shown.contains(part));
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// What a terminal does when its window changes.
    fn resize(&self, (columns, rows): (u16, u16)) {
        let size = rustix::termios::Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        self.screen.lock().unwrap().screen_mut().set_size(cells(rows), cells(columns));
        rustix::termios::tcsetwinsize(&self.keyboard, size).unwrap();
        self.signal(Signal::SIGWINCH);
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Whether lines are edited and echoed, as a shell wants it.
    fn is_cooked(&self) -> bool {
        tcgetattr(&self.inside).unwrap().local_flags.contains(LocalFlags::ICANON | LocalFlags::ECHO)
    }

    /// Waits for the end, and asserts that the terminal is as it was.
    fn ended(mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end\n{}", self.shown());
            thread::sleep(Duration::from_millis(20));
        };
        self.until("the shell's screen is back", |_| {
            let parser = self.screen.lock().unwrap();
            !parser.screen().alternate_screen() && !parser.screen().hide_cursor()
        });
        assert!(self.is_cooked());
        status
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn top_draws_takes_keys_and_sizes_and_gives_the_terminal_back() {
    let pipeline = Pipeline::start(&[]).await;
    let mut top = Terminal::open(&["top"], &[("PENSTOCK_URL", &pipeline.url)], (110, 34));
    top.until_shown("No workers running");
    assert!(!top.is_cooked() && top.screen.lock().unwrap().screen().alternate_screen());
    top.until_shown("app.bsky.");
    top.until("rates are known", |shown| {
        let relay = shown.lines().find(|line| line.contains(" relay ")).unwrap_or_default();
        !relay.contains("?/s") && relay.contains("/s")
    });
    top.until_shown("Workers: 0 alive of 0");

    top.press("/feed.like\r");
    top.until_shown("Events with feed.like");
    top.until("only those are listed", |shown| {
        !shown.contains("app.bsky.feed.post")
            && !shown.contains("app.bsky.graph")
            && shown.contains("app.bsky.feed.like")
    });
    top.press("?");
    top.until_shown("hold the events still");
    top.press("\u{1b}");
    top.until("the help is gone", |shown| !shown.contains("hold the events still"));

    top.resize((60, 16));
    top.until("one panel is left", |shown| !shown.contains("Dead letters") && shown.contains("Events with feed.like"));
    // Arrow keys and Tab as a terminal sends them.
    top.press("\u{1b}[B\t\t\t");
    top.until_shown("Dead letters: 0");
    top.resize((20, 5));
    top.until_shown("too small");
    top.press("q");
    assert_eq!(top.ended().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn top_says_that_figures_are_old_and_ends_well_by_a_signal() {
    let mut pipeline = Pipeline::start(&[("PENSTOCK_DASHBOARD_READ_TOKEN", "geheim-token-1")]).await;
    let variables = [("PENSTOCK_URL", pipeline.url.as_str()), ("PENSTOCK_TOKEN", "geheim-token-1")];
    let top = Terminal::open(&["top"], &variables, (120, 30));
    top.until_shown("app.bsky.");
    for mut service in pipeline.services.drain(..) {
        service.kill().unwrap();
        service.wait().unwrap();
    }
    top.until_shown("reconnecting");
    top.until("it is stale", |shown| shown.contains("Stale: last update ") && !shown.contains('●'));
    assert!(!top.shown().contains("geheim"), "{}", top.shown());
    top.signal(Signal::SIGTERM);
    assert_eq!(top.ended().code(), Some(0));

    let top = Terminal::open(&["top", "--url", &pipeline.url], &[], (120, 30));
    top.until_shown("No metrics yet");
    top.signal(Signal::SIGHUP);
    assert_eq!(top.ended().code(), Some(0));

    let mut top = Terminal::open(&["top", "--url", &pipeline.url], &[], (120, 30));
    top.until_shown("No metrics yet");
    top.press("\u{3}");
    assert_eq!(top.ended().code(), Some(0));
}

#[test]
fn top_without_a_terminal_says_what_to_do() {
    let refused = run(&["top"], &[("TERM", "xterm")]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(64), "{said}");
    assert!(said.contains("kubectl exec -it") && said.contains("penstock status"), "{said}");
    let dumb = Terminal::open(&["top"], &[("TERM", "dumb")], (80, 24));
    dumb.until_shown("TERM=dumb");
    assert_eq!(dumb.ended().code(), Some(64));
}

#[tokio::test(flavor = "multi_thread")]
async fn status_and_tail_end_with_the_codes_that_scripts_read() {
    for (args, code, part) in [
        (&["status", "--url", "ftp://x"][..], 64, "http://host:port"),
        (&["status", "--pause", "10ms"], 64, "1s to 60s"),
        (&["status", "--token-file", "/nowhere/token"], 64, "/nowhere/token"),
        (&["tail", "--did", "alice.test"], 64, "did:plc:"),
        (&["tail", "--limit", "0"], 64, "limit"),
        (&["status", "--url", "127.0.0.1:9"], 2, ""),
        (&["tail", "--url", "127.0.0.1:9"], 1, "could not read http://127.0.0.1:9"),
    ] {
        let done = run(args, &[]);
        let said = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(part), "{args:?}: {said}");
    }
    let down = run(&["status", "--json", "--url", "127.0.0.1:9"], &[]);
    let json: serde_json::Value = serde_json::from_slice(&down.stdout).unwrap();
    assert_eq!((down.status.code(), &json["status"]), (Some(2), &"down".into()));

    let pipeline = Pipeline::start(&[]).await;
    let deadline = Instant::now() + PATIENCE;
    let wanted = ["tail", "--url", &pipeline.url, "--collection", "app.bsky.feed", "--limit", "3"];
    let events = loop {
        let done = run(&wanted, &[]);
        if done.status.success() {
            break String::from_utf8(done.stdout).unwrap();
        }
        assert!(Instant::now() < deadline, "{}", String::from_utf8_lossy(&done.stderr));
    };
    assert_eq!(events.lines().count(), 3);
    for line in events.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(event["lexicon"].as_str().unwrap().starts_with("app.bsky.feed."), "{line}");
    }

    // A reader that goes, and somebody who presses Ctrl-C.
    let shell = format!("{} tail --url {} | head -n 1", binary().display(), pipeline.url);
    let done = Command::new("bash").args(["-o", "pipefail", "-c", &shell]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!((done.stdout.iter().filter(|b| **b == b'\n').count(), done.stderr.len()), (1, 0));
    let tail = Terminal::open(&["tail", "--url", &pipeline.url], &[], (200, 30));
    tail.until_shown("did:plc:");
    tail.signal(Signal::SIGINT);
    assert_eq!(tail.ended().code(), Some(0));
}

#[test]
fn under_the_name_of_the_plugin_it_is_one() {
    let folder = TempFolder::new().unwrap();
    let plugin = folder.path().join("kubectl-penstock");
    std::os::unix::fs::symlink(binary(), &plugin).unwrap();
    let run = |args: &[&str]| Command::new(&plugin).args(args).env_clear().output().unwrap();
    let help = run(&["--help"]);
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(help.status.success() && text.contains("Usage: kubectl penstock"), "{text}");
    for command in ["status", "top", "tail", "report", "--namespace", "--context", "--kubeconfig"] {
        assert!(text.contains(command), "{command} is not in {text}");
    }
    let config = folder.path().join("config");
    std::fs::write(&config, "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: \"http://127.0.0.1:9\"}}]\nusers: []\ncontexts: [{name: c, context: {cluster: c, user: \"\"}}]\ncurrent-context: c\n").unwrap();
    let config = config.to_str().unwrap();
    for (args, code, part) in [
        (&["nonsense"][..], 64, "nonsense"),
        (&["status", "--kubeconfig", "/nowhere/config"], 64, "could not use the kubeconfig"),
        (&["status", "--kubeconfig", config], 2, "could not read the FirehosePipelines"),
        (&["report", "--kubeconfig", config], 1, "could not read the FirehosePipelines"),
    ] {
        let done = run(args);
        let said = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(part), "{args:?}: {said}");
    }
}
