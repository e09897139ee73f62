//! Certificates and keys: the path of a PEM file, or the text itself, as a Secret puts it into the environment.

use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;

use super::value::Value;

/// A certificate or a key in PEM: a file, or its text. Never printed but for the path.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Pem(Source);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Source {
    File(PathBuf),
    Text(String),
}

// === impl Pem ===

impl Pem {
    /// Returns the text, read anew where it is a file.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        match &self.0 {
            Source::File(path) => fs::read(path),
            Source::Text(text) => Ok(text.clone().into_bytes()),
        }
    }
}

impl fmt::Display for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::File(path) => path.display().fmt(f),
            Source::Text(_) => f.write_str("the text that is set"),
        }
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Value for Pem {
    const ALLOWED: &'static str = "the path of a PEM file, or its text (-----BEGIN …)";

    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if is_text(text) {
            return Some(Self(Source::Text(format!("{text}\n"))));
        }
        (!text.is_empty() && !text.contains('\n')).then(|| Self(Source::File(text.into())))
    }

    fn mask(text: &str) -> String {
        // A key whose first line was lost is no path, and still a key.
        if is_text(text.trim()) || text.len() > 200 || text.contains('\n') { "***".to_owned() } else { text.to_owned() }
    }
}

fn is_text(text: &str) -> bool {
    text.starts_with("-----BEGIN ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----";

    #[test]
    fn a_path_and_a_text_are_told_apart_and_a_text_is_never_shown() {
        let file = Pem::parse("/etc/tls/tls.key").unwrap();
        assert_eq!((file.to_string().as_str(), format!("{file:?}").as_str()), ("/etc/tls/tls.key", "/etc/tls/tls.key"));
        assert_eq!(file.read().unwrap_err().kind(), io::ErrorKind::NotFound);
        let text = Pem::parse(&format!("\n{KEY}\n\n")).unwrap();
        assert_eq!(text.read().unwrap(), format!("{KEY}\n").into_bytes());
        assert!(!format!("{text:?} {text}").contains("hunter2"));
        for bad in ["", " ", "MIIE\nhunter2\n-----END PRIVATE KEY-----"] {
            assert_eq!(Pem::parse(bad), None, "{bad:?}");
            assert!(!Pem::mask(bad).contains("hunter2"));
        }
        assert_eq!((Pem::mask("/a/b"), Pem::mask(KEY)), ("/a/b".to_owned(), "***".to_owned()));
    }
}
