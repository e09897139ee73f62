//! Which dashboard is asked, and with which token.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use penstock_core::settings::{Secret, mask};
use url::Url;

use crate::ConsoleError;

/// The variable of the dashboard's address.
pub const URL_VARIABLE: &str = "PENSTOCK_URL";

/// The variable of the token.
pub const TOKEN_VARIABLE: &str = "PENSTOCK_TOKEN";

/// A dashboard, and the token that it is shown.
#[derive(Clone)]
pub struct Target {
    url: Url,
    token: Option<Secret>,
}

// === impl Target ===

impl Target {
    /// Reads an address; a path stays in front of the API's own.
    ///
    /// # Errors
    /// [`ConsoleError::Url`] for what is no `http://` or `https://` address, and for one with a password in it.
    pub fn new(given: &str) -> Result<Self, ConsoleError> {
        let refused = || ConsoleError::Url { given: mask(given) };
        // A bare host and port mean what they mean to curl.
        let text = if given.contains("://") { given.to_owned() } else { format!("http://{given}") };
        let mut url = Url::parse(&text).map_err(|_| refused())?;
        let fits = matches!(url.scheme(), "http" | "https") && url.has_host();
        if !fits || !url.username().is_empty() || url.password().is_some() {
            return Err(refused());
        }
        url.set_query(None);
        url.set_fragment(None);
        Ok(Self { url, token: None })
    }

    /// Returns the dashboard that listens on an address of this machine or pod.
    ///
    /// # Errors
    /// None: every address is one of a dashboard.
    pub fn local(address: SocketAddr) -> Result<Self, ConsoleError> {
        let ip = match address.ip() {
            // `[::]` takes IPv4 too, and a host need not have IPv6.
            ip if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            ip => ip,
        };
        Self::new(&format!("http://{}", SocketAddr::new(ip, address.port())))
    }

    /// Shows this token.
    ///
    /// # Errors
    /// [`ConsoleError::Token`] where it cannot stand in a header.
    pub fn with_token(mut self, token: &Secret, origin: &str) -> Result<Self, ConsoleError> {
        let text = token.expose().trim();
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(ConsoleError::Token { origin: origin.to_owned() });
        }
        self.token = (!text.is_empty()).then(|| Secret::from(text.to_owned()));
        Ok(self)
    }

    /// Shows the token that stands in a file, as a mounted Secret does.
    ///
    /// # Errors
    /// [`ConsoleError::TokenFile`] where it cannot be read, and as [`Target::with_token`].
    pub fn with_token_of(self, path: &Path) -> Result<Self, ConsoleError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConsoleError::TokenFile { path: path.to_owned(), source })?;
        self.with_token(&Secret::from(text), &path.display().to_string())
    }

    /// Returns the address of a route.
    pub(crate) fn path(&self, route: &str) -> String {
        format!("{}{route}", self.url.path().trim_end_matches('/'))
    }

    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    pub(crate) fn token(&self) -> Option<&Secret> {
        self.token.as_ref()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url.as_str().trim_end_matches('/'))
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("url", &self.url.as_str()).field("token", &self.token).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_keeps_its_path_and_needs_no_scheme() {
        let cases = [
            ("http://h:8000", "http://h:8000", "/api/metrics"),
            ("h:8000/", "http://h:8000", "/api/metrics"),
            ("https://h/penstock/", "https://h/penstock", "/penstock/api/metrics"),
            ("https://h/penstock?x=1#y", "https://h/penstock", "/penstock/api/metrics"),
            ("[::1]:80", "http://[::1]", "/api/metrics"),
        ];
        for (given, shown, path) in cases {
            let target = Target::new(given).unwrap();
            assert_eq!((target.to_string().as_str(), target.path("/api/metrics").as_str()), (shown, path));
        }
        for given in ["", "ftp://h", "http://", "http://user:geheim@h", "http://user@h", "http://h:99999"] {
            let refused = Target::new(given).unwrap_err();
            assert!(refused.is_usage() && !refused.to_string().contains("geheim"), "{refused}");
        }
    }

    #[test]
    fn what_listens_on_every_address_is_reached_on_loopback() {
        let shown = |address: &str| Target::local(address.parse().unwrap()).unwrap().to_string();
        assert_eq!(
            [shown("0.0.0.0:8000"), shown("[::]:81"), shown("10.0.0.7:82")],
            ["http://127.0.0.1:8000", "http://127.0.0.1:81", "http://10.0.0.7:82"]
        );
    }

    #[test]
    fn a_token_is_trimmed_sent_and_never_shown() {
        let target = || Target::new("h").unwrap();
        let with = target().with_token(&Secret::from("geheim\n".to_owned()), "PENSTOCK_TOKEN").unwrap();
        assert_eq!(with.token().unwrap().expose(), "geheim");
        assert!(!format!("{with:?} {with}").contains("geheim"));
        assert!(target().with_token(&Secret::from(" ".to_owned()), "x").unwrap().token().is_none());
        let refused = target().with_token(&Secret::from("ge\nheim".to_owned()), "PENSTOCK_TOKEN").unwrap_err();
        assert!(refused.to_string().contains("PENSTOCK_TOKEN") && !refused.to_string().contains("heim"), "{refused}");
        let refused = target().with_token_of(Path::new("/nowhere/token")).unwrap_err();
        assert!(refused.is_usage() && refused.to_string().contains("/nowhere/token"));
    }
}
