//! Operators: in this process, or as a process of their own that can be killed.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use kube::Client;
use penstock_core::settings::{Layers, Settings};
use penstock_local::testing::TempFolder;
use penstock_telemetry::admin::Health;
use penstock_telemetry::metrics::Metrics;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::rig::{Rig, client_for};

/// What a process of its own is told; unset in an ordinary run of the tests.
const ROLE: &str = "PENSTOCK_OPERATOR_TEST_ROLE";

/// The hash of the schema that the workers of this version need.
pub(crate) const SCHEMA: &str = "0123456789abcdef";

/// An operator in this process, on threads of its own; killed when dropped.
pub(crate) struct Operator {
    runtime: Option<Runtime>,
    run: JoinHandle<Result<(), String>>,
    cancel: CancellationToken,
    /// Where its recommendations are.
    pub(crate) address: String,
}

/// An operator as a process of its own, killed when dropped: the binary that PENSTOCK_BIN names, else this one again.
pub(crate) struct Process {
    child: Child,
    _folder: TempFolder,
}

// === impl Operator ===

impl Operator {
    /// Starts one for the pipelines of the rig's namespace.
    pub(crate) async fn start(rig: &Rig) -> Self {
        Self::start_with(rig, &[]).await
    }

    /// Starts one with further settings.
    pub(crate) async fn start_with(rig: &Rig, settings: &[(&str, &str)]) -> Self {
        Self::start_as(&rig.server.kubeconfig(), &rig.namespace, settings)
    }

    /// Starts one with a kubeconfig of its own.
    pub(crate) fn start_as(kubeconfig: &str, namespace: &str, settings: &[(&str, &str)]) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let cancel = CancellationToken::new();
        let address = format!("127.0.0.1:{}", free_port());
        // Nobody follows it, and on a machine that has much else to do a renewal may take its time.
        let own = [
            ("operator.address", address.as_str()),
            ("operator.leaseDuration", "2m"),
            ("operator.renewDeadline", "1m"),
        ];
        let settings = load(namespace, &[&own[..], settings].concat());
        let (kubeconfig, token) = (kubeconfig.to_owned(), cancel.clone());
        let run = runtime.spawn(async move {
            let client = client_for(&kubeconfig).await;
            run(settings, client, token).await
        });
        Self { runtime: Some(runtime), run, cancel, address }
    }

    /// Ends it in order.
    pub(crate) async fn stop(mut self) {
        self.cancel.cancel();
        let ended = tokio::time::timeout(crate::rig::DEADLINE, &mut self.run).await;
        ended.expect("the operator ends when it is told to").unwrap().unwrap();
    }

    pub(crate) fn is_running(&self) -> bool {
        !self.run.is_finished()
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

// === impl Process ===

impl Process {
    /// Starts one for the pipelines of the rig's namespace.
    pub(crate) fn start(rig: &Rig, settings: &[(&str, &str)]) -> Self {
        let folder = TempFolder::new().unwrap();
        let config = folder.path().join("kubeconfig");
        std::fs::write(&config, rig.server.kubeconfig()).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let (address, admin) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
        let own = [("operator.address", address.as_str()), ("telemetry.adminAddress", admin.as_str())];
        let mut command = match std::env::var_os("PENSTOCK_BIN") {
            Some(binary) => {
                let mut command = Command::new(binary);
                command.arg("operator");
                for (path, value) in [&flags(&rig.namespace)[..], &own, settings].concat() {
                    command.args(["--set", &format!("{path}={value}")]);
                }
                command
            }
            None => {
                let mut command = Command::new(std::env::current_exe().unwrap());
                command.args(["--exact", "operator::process", "--nocapture", "--test-threads=1"]);
                let told = serde_json::to_string(&(&rig.namespace, [&own, settings].concat())).unwrap();
                command.env(ROLE, told);
                command
            }
        };
        command.env("KUBECONFIG", &config).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Self { child: command.spawn().unwrap(), _folder: folder }
    }

    /// Kills it, as a lost node would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Returns the memory that it has in use, in kB.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self._folder.path().join("log")).unwrap_or_default();
            let _ = writeln!(std::io::stderr(), "the operator said:\n{log}");
        }
    }
}

/// No claim of its own: the operator that other tests start as a process.
#[test]
fn process() {
    let Ok(told) = std::env::var(ROLE) else { return };
    let (namespace, own): (String, Vec<(String, String)>) = serde_json::from_str(&told).unwrap();
    let own: Vec<(&str, &str)> = own.iter().map(|(path, value)| (path.as_str(), value.as_str())).collect();
    let settings = load(&namespace, &own);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let kubeconfig = std::fs::read_to_string(std::env::var("KUBECONFIG").unwrap()).unwrap();
        run(settings, client_for(&kubeconfig).await, CancellationToken::new()).await.unwrap();
    });
}

/// Times short enough for tests, and a lease in the namespace that is watched.
fn flags(namespace: &str) -> [(&'static str, &str); 9] {
    [
        ("operator.namespace", namespace),
        ("operator.watchNamespaces", namespace),
        ("operator.image", "penstock:test"),
        ("operator.recommendationUrl", "http://penstock-operator.penstock.svc:8080"),
        ("operator.leaseDuration", "3s"),
        ("operator.renewDeadline", "2s"),
        ("operator.retryPeriod", "200ms"),
        ("operator.scalingInterval", "500ms"),
        ("operator.deletionDeadline", "1m"),
    ]
}

fn load(namespace: &str, own: &[(&str, &str)]) -> Settings {
    let all = flags(namespace).into_iter().chain(own.iter().copied());
    let layers = all.fold(Layers::default(), |layers, (path, value)| layers.flag(path, value));
    Settings::load(&layers).unwrap()
}

async fn run(settings: Settings, client: Client, cancel: CancellationToken) -> Result<(), String> {
    let (metrics, health) = (Metrics::default(), Health::new());
    let client = (client, "https://api".to_owned());
    penstock_operator::run(Arc::new(settings), client, SCHEMA.to_owned(), metrics, health, cancel)
        .await
        .map_err(|error| error.to_string())
}

/// Asks for what KEDA is told; `None` while nothing is recommended.
pub(crate) async fn recommendation(address: &str, namespace: &str, name: &str) -> Option<u64> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
    let request =
        format!("GET /recommendation/{namespace}/{name} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let body: serde_json::Value = serde_json::from_str(body).ok().filter(|_| head.contains(" 200 "))?;
    body["replicas"].as_u64()
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
