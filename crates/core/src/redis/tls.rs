//! TLS towards Redis: whom we trust, and who we are.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use fred::types::config::TlsConnector;
use rustls::client::ResolvesClientCert;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme};
use thiserror::Error;

use crate::causes::chain;
use crate::settings::{Pem, Redis};

/// Why there is no TLS. None of them shows what stands in a file.
#[derive(Debug, Error)]
pub enum TlsError {
    /// What a setting names cannot be used.
    #[error("could not use {setting} ({shown}): {reason}")]
    Pem {
        /// The setting.
        setting: &'static str,
        /// The path.
        shown: String,
        /// Why.
        reason: String,
    },
    /// Certificate and key do not belong together, or are of a kind that is not supported.
    #[error("could not use redis.tls.cert with redis.tls.key: {0}")]
    Pair(String),
    /// The system's list of authorities cannot be used.
    #[error("could not read the system's certificates: {0}")]
    System(String),
}

/// Builds what the settings ask for; none where they leave everything to the system.
///
/// # Errors
/// A certificate or key cannot be read or used.
pub(super) fn connector(settings: &Redis) -> Result<Option<TlsConnector>, TlsError> {
    let Redis { tls_ca, tls_cert, tls_key, .. } = settings;
    if tls_ca.is_none() && tls_cert.is_none() {
        return Ok(None);
    }
    let provider = Arc::new(ring::default_provider());
    let roots = roots(tls_ca.as_ref())?;
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::System(error.to_string()))?
        .with_root_certificates(roots);
    let config = match (tls_cert, tls_key) {
        (Some(cert), Some(key)) => config.with_client_cert_resolver(Arc::new(Identity::new(cert, key, provider)?)),
        _ => config.with_no_client_auth(),
    };
    Ok(Some(config.into()))
}

fn roots(ca: Option<&Pem>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let Some(ca) = ca else {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let reason = found.errors.first().map_or_else(|| "there are none".to_owned(), ToString::to_string);
            return Err(TlsError::System(reason));
        }
        return Ok(roots);
    };
    for certificate in certificates("redis.tls.ca", ca)? {
        roots.add(certificate).map_err(|error| unusable("redis.tls.ca", ca, &error))?;
    }
    Ok(roots)
}

fn certificates(setting: &'static str, pem: &Pem) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = pem.read().map_err(|error| unusable(setting, pem, &error))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if found.is_empty() => Err(unusable(setting, pem, &"it holds no certificate in PEM")),
        Ok(found) => Ok(found),
        Err(_) => Err(unusable(setting, pem, &"it is no certificate in PEM")),
    }
}

fn unusable(setting: &'static str, pem: &Pem, reason: &dyn fmt::Display) -> TlsError {
    TlsError::Pem { setting, shown: pem.to_string(), reason: reason.to_string() }
}

/// Who we are. Read anew for each connection, so that a certificate that is replaced on disk counts from then on; one that
/// cannot be read leaves the one before.
struct Identity {
    cert: Pem,
    key: Pem,
    provider: Arc<CryptoProvider>,
    last: Mutex<Arc<CertifiedKey>>,
}

// === impl Identity ===

impl Identity {
    fn new(cert: &Pem, key: &Pem, provider: Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let first = load(cert, key, &provider)?;
        Ok(Self { cert: cert.clone(), key: key.clone(), provider, last: Mutex::new(Arc::new(first)) })
    }
}

fn load(cert: &Pem, key: &Pem, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let chain = certificates("redis.tls.cert", cert)?;
    let text = key.read().map_err(|error| unusable("redis.tls.key", key, &error))?;
    let private = PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        unusable("redis.tls.key", key, &"it holds no private key in PEM (one with a passphrase is not read)")
    })?;
    CertifiedKey::from_der(chain, private, provider).map_err(|error| TlsError::Pair(error.to_string()))
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _issuers: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match load(&self.cert, &self.key, &self.provider) {
            Ok(now) => *last = Arc::new(now),
            Err(error) => {
                tracing::debug!(error = chain(&error), "client certificate not read anew, using the one before");
            }
        }
        Some(Arc::clone(&last))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("cert", &self.cert).finish_non_exhaustive()
    }
}
