//! Why an identity is not known.

use thiserror::Error;

/// Why a DID, or what it says, could not be resolved.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ResolveError {
    /// The directory, or the host, knows no such DID.
    #[error("no such DID")]
    NotFound,
    /// The DID was ended by its owner.
    #[error("the DID is tombstoned")]
    Tombstoned,
    /// What there is cannot be used, or may not be asked for.
    #[error("{why}")]
    Refused {
        /// What is wrong with it.
        why: Box<str>,
    },
    /// A host gave no answer, or asked to be left alone for a while.
    #[error("{host} {why}")]
    Unreachable {
        /// Its name.
        host: Box<str>,
        /// What happened.
        why: Box<str>,
    },
    /// More is being asked for than the rate allows.
    #[error("too many requests wait for {host}")]
    Busy {
        /// The host.
        host: Box<str>,
    },
}

impl ResolveError {
    /// Returns whether asking again soon is of no use: who was asked said so.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::NotFound | Self::Tombstoned | Self::Refused { .. })
    }

    /// Names it for the label of a metric.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Tombstoned => "tombstoned",
            Self::Refused { .. } => "refused",
            Self::Unreachable { .. } => "unreachable",
            Self::Busy { .. } => "busy",
        }
    }

    pub(crate) fn refused(why: impl Into<Box<str>>) -> Self {
        Self::Refused { why: why.into() }
    }

    pub(crate) fn unreachable(host: &str, why: impl Into<Box<str>>) -> Self {
        Self::Unreachable { host: host.into(), why: why.into() }
    }
}

/// Why identities cannot be resolved with these settings.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// The directory's address is none.
    #[error("identity.plcUrl: {why}; give an address such as https://plc.directory")]
    PlcUrl {
        /// What is wrong with it.
        why: String,
    },
    /// The system has no certificate authorities.
    #[error("no certificate authorities are installed, so that no host can be trusted: install ca-certificates{why}")]
    Roots {
        /// What the system said.
        why: String,
    },
    /// The system's resolver cannot be used.
    #[error("could not read how names are resolved: set identity.dnsServer, or mend /etc/resolv.conf")]
    Resolver(#[source] hickory_resolver::net::NetError),
}
