//! A list in the settings, or the file that holds it.

use std::path::{Path, PathBuf};

use super::value::Value;
use crate::filter::{Collections, DidError, Dids};

/// A list, or the file that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listed<T> {
    /// The list itself.
    List(T),
    /// The path of a file; `@/path` in the settings.
    File(PathBuf),
}

// === impl Listed ===

impl<T> Listed<T> {
    /// Returns the path of the file, where it is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::List(_) => None,
            Self::File(path) => Some(path),
        }
    }
}

impl<T: Default> Default for Listed<T> {
    fn default() -> Self {
        Self::List(T::default())
    }
}

impl<T: Value> Value for Listed<T> {
    const ALLOWED: &'static str = T::ALLOWED;

    fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix('@') {
            Some(path) => (!path.is_empty() && !path.contains([',', '\n'])).then(|| Self::File(path.into())),
            None => T::parse(text).map(Self::List),
        }
    }

    fn why(text: &str) -> Option<String> {
        match text.strip_prefix('@') {
            Some(_) => Some("@ and the path of one file".to_owned()),
            None => T::why(text),
        }
    }
}

impl Value for Dids {
    const ALLOWED: &'static str = "DIDs, comma-separated, or @ and the path of a file with one a line";

    fn parse(text: &str) -> Option<Self> {
        Self::read(text).ok()
    }

    fn why(text: &str) -> Option<String> {
        let DidError { text, .. } = Self::read(text).err()?;
        Some(format!("{}; {text:?} is no DID", Self::ALLOWED))
    }
}

impl Value for Collections {
    const ALLOWED: &'static str = "collections, comma-separated: app.bsky.feed.post, app.bsky.* for all below, !app.bsky.feed.like to leave one out";

    fn parse(text: &str) -> Option<Self> {
        Self::read(text).ok()
    }

    fn why(text: &str) -> Option<String> {
        Self::read(text).err().map(|error| format!("{} ({error})", Self::ALLOWED))
    }
}
