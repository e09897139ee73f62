//! A Kubernetes API server for tests.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::net::TcpStream;
use tokio::process::Command;

use super::TempFolder;
use crate::server::{Launch, Server};
use crate::{LocalError, port, programs};

/// How long a start may take on a machine that has much else to do.
const READY: Duration = Duration::from_secs(180);

/// The bearer token of the user `admin`, of the group `system:masters`.
const ADMIN: &str = "admin";

/// What service accounts ask for is written down; the rest is the tests' own.
const AUDIT: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived", "ResponseStarted"],
"rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts"]}, {"level": "None"}]}"#;

/// A Kubernetes API server with RBAC and the garbage collector on 127.0.0.1, gone when dropped.
///
/// There are no other controllers: the status of Deployments and Jobs is what a test writes there.
#[derive(Debug)]
pub struct TestApiServer {
    programs: PathBuf,
    ports: Ports,
    collector: Option<Server>,
    server: Option<Server>,
    _store: Server,
    folder: TempFolder,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    api: u16,
    store: u16,
    store_peer: u16,
}

// === impl TestApiServer ===

impl TestApiServer {
    /// Starts one, or returns `None` where its programs are not installed: `make envtest` gets them.
    ///
    /// # Errors
    ///
    /// [`LocalError::EndedEarly`] and [`LocalError::NotReady`] with the end of a log.
    pub async fn start() -> Result<Option<Self>, LocalError> {
        let Some(programs) = programs::kubernetes_folder() else { return Ok(None) };
        port::starting(None, None, |api| Self::start_on(api, &programs)).await.map(Some)
    }

    /// Returns the folder of its programs, where `kubectl` is, and `helm` may be.
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// Says whether what belongs to a deleted object is deleted: not where kube-controller-manager is missing, as in the programs of
    /// setup-envtest.
    pub fn collects_garbage(&self) -> bool {
        self.collector.is_some()
    }

    /// Returns a kubeconfig for the user `admin`, who may do everything.
    pub fn kubeconfig(&self) -> String {
        self.kubeconfig_for(ADMIN)
    }

    /// Returns a kubeconfig for the holder of a token.
    pub fn kubeconfig_for(&self, token: &str) -> String {
        kubeconfig(self.folder.path(), self.ports.api, token)
    }

    /// Returns the file of what service accounts asked for: a JSON object (`audit.k8s.io/v1`) a line.
    pub fn audit_log(&self) -> PathBuf {
        self.folder.path().join("audit.log")
    }

    /// Kills the API server, as a lost machine would; etcd keeps what was written.
    pub fn kill(&mut self) {
        // It gives up without the server, and is started again with it.
        drop(self.collector.take());
        if let Some(server) = self.server.take() {
            server.kill();
        }
    }

    /// Starts the killed API server again on its port.
    ///
    /// # Errors
    ///
    /// As [`TestApiServer::start`].
    pub async fn restart(&mut self) -> Result<(), LocalError> {
        self.kill();
        self.launch().await
    }

    async fn start_on(api: u16, programs: &Path) -> Result<Self, LocalError> {
        let folder = TempFolder::new()?;
        let ports = Ports { api, store: port::free()?, store_peer: port::free()? };
        write_files(folder.path(), ports.api)?;
        let store = launch_etcd(programs, folder.path(), ports).await?;
        let programs = programs.to_owned();
        let mut server = Self { programs, ports, collector: None, server: None, _store: store, folder };
        server.launch().await?;
        Ok(server)
    }

    async fn launch(&mut self) -> Result<(), LocalError> {
        let Ports { api, store, .. } = self.ports;
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        // Nobody makes the ServiceAccounts that the plugin of that name asks for. The other one asks for the permission that an
        // owner reference which blocks deletion needs, as some distributions do.
        let args = format!(
            "--etcd-servers=http://127.0.0.1:{store} --bind-address=127.0.0.1 --secure-port={api} --cert-dir={} \
             --token-auth-file={} --authorization-mode=RBAC --disable-admission-plugins=ServiceAccount \
             --enable-admission-plugins=OwnerReferencesPermissionEnforcement --service-cluster-ip-range=10.96.0.0/16 \
             --service-account-issuer=https://test --service-account-signing-key-file={} --service-account-key-file={} \
             --audit-policy-file={} --audit-log-path={}",
            file("certificates"),
            file("tokens"),
            file("accounts.key"),
            file("accounts.pub"),
            file("audit.json"),
            file("audit.log"),
        );
        let mut server = self.start_program("kube-apiserver", &args).await?;
        let (kubectl, config) = (self.programs.join("kubectl"), file("admin.kubeconfig"));
        server.wait_until_ready(READY, |_| answers(api, &kubectl, &config)).await?;
        self.server = Some(server);
        if self.programs.join("kube-controller-manager").is_file() {
            let config = file("admin.kubeconfig");
            let args = format!(
                "--kubeconfig={config} --authentication-kubeconfig={config} --authorization-kubeconfig={config} \
                 --secure-port=0 --leader-elect=false --controllers=garbage-collector-controller"
            );
            self.collector = Some(self.start_program("kube-controller-manager", &args).await?);
        }
        Ok(())
    }

    async fn start_program(&self, name: &'static str, args: &str) -> Result<Server, LocalError> {
        start(&self.programs, self.folder.path(), name, args).await
    }
}

async fn launch_etcd(programs: &Path, folder: &Path, ports: Ports) -> Result<Server, LocalError> {
    let Ports { store, store_peer: peer, .. } = ports;
    let args = format!(
        "--data-dir=data --unsafe-no-fsync --listen-client-urls=http://127.0.0.1:{store} \
         --advertise-client-urls=http://127.0.0.1:{store} --listen-peer-urls=http://127.0.0.1:{peer} \
         --initial-advertise-peer-urls=http://127.0.0.1:{peer} --initial-cluster=default=http://127.0.0.1:{peer}"
    );
    let mut server = start(programs, folder, "etcd", &args).await?;
    server.wait_until_ready(READY, |_| accepts(store)).await?;
    Ok(server)
}

async fn start(programs: &Path, folder: &Path, name: &'static str, args: &str) -> Result<Server, LocalError> {
    let launch = Launch {
        name,
        program: programs.join(name),
        args: args.split_whitespace().map(str::to_owned).collect(),
        folder: folder.join(name),
        identity: None,
        // Not asked politely: what they hold goes with the folder, and the API server would wait for its watchers.
        farewell: Signal::SIGKILL,
        abort: Signal::SIGKILL,
        // By each, of which the last one finds nobody writing any more.
        remove: Some(folder.to_owned()),
    };
    launch.start().await
}

fn write_files(folder: &Path, port: u16) -> Result<(), LocalError> {
    let key = rcgen::KeyPair::generate().map_err(|source| LocalError::MakeKey { source })?;
    let files = [
        ("accounts.key", key.serialize_pem()),
        ("accounts.pub", key.public_key_pem()),
        ("tokens", format!("{ADMIN},admin,admin,system:masters\n")),
        ("audit.json", AUDIT.to_owned()),
        ("admin.kubeconfig", kubeconfig(folder, port, ADMIN)),
    ];
    for (name, text) in files {
        let path = folder.join(name);
        fs::write(&path, text).map_err(LocalError::prepare(&path))?;
    }
    Ok(())
}

fn kubeconfig(folder: &Path, port: u16, token: &str) -> String {
    // The server makes its certificate itself, and the authority's beside it.
    let authority = folder.join("certificates/apiserver.crt");
    format!(
        "apiVersion: v1\nkind: Config\n\
         clusters: [{{name: test, cluster: {{server: \"https://127.0.0.1:{port}\", certificate-authority: {:?}}}}}]\n\
         users: [{{name: test, user: {{token: {token:?}}}}}]\n\
         contexts: [{{name: test, context: {{cluster: test, user: test}}}}]\n\
         current-context: test\n",
        authority.display().to_string(),
    )
}

async fn accepts(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok()
}

/// Says whether the server is ready, by its own word.
async fn answers(port: u16, kubectl: &Path, config: &str) -> bool {
    // kubectl takes a moment by itself.
    if !accepts(port).await {
        return false;
    }
    let mut command = Command::new(kubectl);
    command.args(["--kubeconfig", config, "--request-timeout=5s", "get", "--raw", "/readyz"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    command.status().await.is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubectl(server: &TestApiServer, args: &[&str]) -> String {
        let config = server.folder.path().join("admin.kubeconfig");
        let mut command = std::process::Command::new(server.programs().join("kubectl"));
        let output = command.arg("--kubeconfig").arg(config).args(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[tokio::test]
    async fn what_was_written_survives_a_killed_api_server_and_goes_with_its_drop() {
        let Some(mut server) = TestApiServer::start().await.unwrap() else {
            println!("skipped: no kube-apiserver; `make envtest` gets it");
            return;
        };
        kubectl(&server, &["create", "configmap", "kept", "--from-literal=a=b"]);
        server.kill();
        assert!(!accepts(server.ports.api).await);
        server.restart().await.unwrap();
        assert_eq!(kubectl(&server, &["get", "configmap", "kept", "--output=jsonpath={.data.a}"]), "b");
        let (folder, ports) = (server.folder.path().to_owned(), server.ports);
        drop(server);
        assert!(!accepts(ports.api).await && !accepts(ports.store).await && !folder.exists());
    }
}
