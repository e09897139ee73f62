//! What is verified of commits, and where accounts' keys, hosts and handles come from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{Memory, Time};

/// What is verified of the commits that the relay sends.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{ "rule": "self.signatures == 'off' || self.mode != 'off'", "message": "verify.signatures must be off while verify.mode is off: a signature is over the commit that verify.mode checks" }]))]
pub struct Verify {
    /// Whether commits are verified: that a commit's ops follow from the tree before it, that the frame says what the signed commit says,
    /// and that it follows the repo's last one. `count` (default) counts failures; `enforce` also makes a dead letter of a commit that
    /// proves wrong; `"off"`, in quotes because YAML takes a bare off for false, looks at none.
    pub mode: Verification,
    /// Whether signatures are checked against the accounts' keys, which needs `identity.enabled`: `"off"` (default, in quotes), `count` or
    /// `enforce`.
    pub signatures: Verification,
    /// What becomes of a commit whose account's key cannot be had, as while the directory is away: `pass` (default) writes and counts it,
    /// `hold` waits as for a full stream.
    pub unresolved: Unresolved,
    /// Memory for the last state of recent repos, 64Ki to 16Gi, 24 bytes each; that of others is read from PostgreSQL. It is added to the
    /// memory of ingest's default resources. Default: 64Mi.
    pub memory: Memory,
}

/// Whether something is verified, and what becomes of what fails.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verification {
    /// It is not looked at.
    #[default]
    Off,
    /// Failures are counted.
    Count,
    /// What fails is refused.
    Enforce,
}

/// What becomes of a commit whose account's key cannot be had.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Unresolved {
    /// It is written, and counted.
    #[default]
    Pass,
    /// Reading waits.
    Hold,
}

/// Where accounts' keys, hosts and handles come from. Ingest and workers then ask the directory, and hosts that accounts name, over
/// HTTPS: their pods need a way out.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Identity {
    /// Whether DIDs and handles are resolved over the network. Default: false.
    pub enabled: bool,
    /// URL of the directory of did:plc; a mirror will do. Default: `https://plc.directory`.
    #[schemars(length(max = 1024))]
    #[schemars(extend("x-kubernetes-validations" = [{ "rule": "self.matches('^https?://[^@?# ]+$')", "message": "identity.plcUrl must be a URL without user, query and fragment, such as https://plc.directory" }]))]
    pub plc_url: String,
    /// Maximum requests per second of a pod to the directory, and to each other host, 1 to 10000. Default: 20.
    #[schemars(range(min = 1, max = 10_000))]
    pub rate: i32,
    /// Timeout of a request, 50ms to 2m. Default: 10s.
    pub timeout: Time,
    /// How long what was resolved is trusted without a word of change, 1s to 90d. Default: 24h.
    pub max_age: Time,
    /// How long after a failure it is not tried again, 50ms to 1d; it doubles with each failure, up to 64 times. Default: 1m.
    pub retry_after: Time,
    /// Memory for resolved identities in each pod, 64Ki to 16Gi, about 160 bytes each; others are read from PostgreSQL. While enabled, it
    /// is added to the memory of the default resources of ingest and workers. Default: 32Mi.
    pub memory: Memory,
    /// Private networks that may be asked, such as `10.0.0.0/8`; plain HTTP is allowed there too. Default: none, since anyone can write any
    /// address into a DID document.
    #[schemars(length(max = 32), inner(length(max = 64)))]
    pub allowed_networks: Vec<String>,
    /// DNS server to ask for handles, as address and port. Default: the pod's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub dns_server: Option<String>,
}

// === impl Verify ===

impl Default for Verify {
    fn default() -> Self {
        Self {
            mode: Verification::Count,
            signatures: Verification::Off,
            unresolved: Unresolved::Pass,
            memory: "64Mi".into(),
        }
    }
}

// === impl Verification ===

impl Verification {
    /// Returns its name, which is that of the setting too.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Count => "count",
            Self::Enforce => "enforce",
        }
    }
}

// === impl Unresolved ===

impl Unresolved {
    /// Returns its name, which is that of the setting too.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Hold => "hold",
        }
    }
}

// === impl Identity ===

impl Default for Identity {
    fn default() -> Self {
        Self {
            enabled: false,
            plc_url: "https://plc.directory".to_owned(),
            rate: 20,
            timeout: "10s".into(),
            max_age: "24h".into(),
            retry_after: "1m".into(),
            memory: "32Mi".into(),
            allowed_networks: Vec::new(),
            dns_server: None,
        }
    }
}
