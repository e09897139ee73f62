//! What somebody asks for: an account, or one record of it.

use std::fmt;

use thiserror::Error;

/// The longest question, in bytes: a URI has at most 2,889.
const LONGEST: usize = 4096;

/// The longest parts of a URI, in bytes.
const LONGEST_DID: usize = 2048;
const LONGEST_HANDLE: usize = 253;
const LONGEST_COLLECTION: usize = 317;
const LONGEST_KEY: usize = 512;

/// What is looked up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Asked {
    /// Whose repo it is.
    pub account: Account,
    /// The record; none where the whole repo is asked for.
    pub path: Option<RecordPath>,
}

/// How an account is named.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Account {
    /// By its DID.
    Did(String),
    /// By its handle, in lower case.
    Handle(String),
}

/// The path of a record within its repo.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RecordPath {
    /// The collection, such as `app.bsky.feed.post`.
    pub collection: String,
    /// The record's key.
    pub rkey: String,
}

/// A text that names neither an account nor a record.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum AskedError {
    /// It is no name of an account.
    #[error(
        "give a DID such as did:plc:…, a handle such as alice.example.com, or an AT-URI such as at://did:plc:…/app.bsky.feed.post/3k…"
    )]
    NoAccount,
    /// What follows the account is no path of a record.
    #[error("the path of a record is collection/key, such as app.bsky.feed.post/3k…")]
    NoPath,
    /// It is longer than any URI.
    #[error("longer than any AT-URI")]
    TooLong,
}

// === impl Asked ===

impl Asked {
    /// Reads a DID, a handle with or without `@`, an AT-URI, or the address of a post, list or feed on bsky.app.
    ///
    /// # Errors
    /// It is none of them.
    pub fn read(text: &str) -> Result<Self, AskedError> {
        let text = text.trim();
        if text.len() > LONGEST {
            return Err(AskedError::TooLong);
        }
        if let Some(rest) = text.strip_prefix("https://bsky.app/profile/") {
            return Self::read_link(rest);
        }
        let rest = text.strip_prefix("at://").unwrap_or(text);
        let (account, path) = rest.split_once('/').map_or((rest, ""), |(account, path)| (account, path));
        let account = Account::read(account).ok_or(AskedError::NoAccount)?;
        let path = match path.trim_end_matches('/') {
            "" => None,
            path => RecordPath::read(path)?,
        };
        Ok(Self { account, path })
    }

    /// Reads what follows `profile/` in an address of bsky.app.
    fn read_link(rest: &str) -> Result<Self, AskedError> {
        let rest = rest.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
        let mut parts = rest.split('/');
        let account = parts.next().and_then(Account::read).ok_or(AskedError::NoAccount)?;
        let path = match (parts.next(), parts.next(), parts.next()) {
            (None, ..) => None,
            (Some(kind), Some(rkey), None) => {
                let collection = match kind {
                    "post" => "app.bsky.feed.post",
                    "lists" => "app.bsky.graph.list",
                    "feed" => "app.bsky.feed.generator",
                    _ => return Err(AskedError::NoPath),
                };
                RecordPath::read(&format!("{collection}/{rkey}"))?
            }
            _ => return Err(AskedError::NoPath),
        };
        Ok(Self { account, path })
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let account = match &self.account {
            Account::Did(name) | Account::Handle(name) => name,
        };
        match &self.path {
            None => f.write_str(account),
            Some(path) => write!(f, "at://{account}/{path}"),
        }
    }
}

// === impl Account ===

impl Account {
    fn read(text: &str) -> Option<Self> {
        if let Some(rest) = text.strip_prefix("did:") {
            let (method, id) = rest.split_once(':')?;
            let fits = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_lowercase());
            let id_fits = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:%-".contains(&byte));
            let fits = fits && id_fits && !id.is_empty() && !id.ends_with([':', '%']) && text.len() <= LONGEST_DID;
            return fits.then(|| Self::Did(text.to_owned()));
        }
        let name = text.strip_prefix('@').unwrap_or(text);
        let is_label = |label: &str| {
            let inner = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            (1..=63).contains(&label.len()) && inner && !label.starts_with('-') && !label.ends_with('-')
        };
        let fits = name.len() <= LONGEST_HANDLE && name.contains('.') && name.split('.').all(is_label);
        fits.then(|| Self::Handle(name.to_ascii_lowercase()))
    }
}

// === impl RecordPath ===

impl RecordPath {
    /// Reads `collection/key`; none where there is a collection alone.
    fn read(path: &str) -> Result<Option<Self>, AskedError> {
        let (collection, rkey) = path.split_once('/').map_or((path, None), |(one, other)| (one, Some(other)));
        let is_part =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let is_collection = collection.len() <= LONGEST_COLLECTION
            && collection.split('.').count() >= 3
            && collection.split('.').all(is_part);
        let is_key = |rkey: &&str| {
            (1..=LONGEST_KEY).contains(&rkey.len())
                && rkey.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:~".contains(&byte))
        };
        match rkey {
            _ if !is_collection => Err(AskedError::NoPath),
            None => Ok(None),
            Some(rkey) => {
                let rkey = Some(rkey).filter(is_key).ok_or(AskedError::NoPath)?;
                Ok(Some(Self { collection: collection.to_owned(), rkey: rkey.to_owned() }))
            }
        }
    }

    /// Returns the URI of the record in an account's repo.
    #[must_use]
    pub fn uri(&self, did: &str) -> String {
        format!("at://{did}/{self}")
    }
}

impl fmt::Display for RecordPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.collection, self.rkey)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_or_a_record_is_read_however_it_is_written() {
        for (text, read) in [
            ("did:plc:abc", "did:plc:abc"),
            (" did:web:a.test ", "did:web:a.test"),
            ("Alice.Example.com", "alice.example.com"),
            ("@alice.example.com", "alice.example.com"),
            ("at://did:plc:abc", "did:plc:abc"),
            ("at://did:plc:abc/app.bsky.feed.post", "did:plc:abc"),
            ("at://did:plc:abc/app.bsky.feed.post/3k", "at://did:plc:abc/app.bsky.feed.post/3k"),
            ("at://alice.example.com/app.bsky.feed.post/3k", "at://alice.example.com/app.bsky.feed.post/3k"),
            ("did:plc:abc/app.bsky.feed.post/3k", "at://did:plc:abc/app.bsky.feed.post/3k"),
            ("at://did:plc:abc/org.example.note/a~b:c", "at://did:plc:abc/org.example.note/a~b:c"),
            ("https://bsky.app/profile/alice.example.com", "alice.example.com"),
            ("https://bsky.app/profile/did:plc:abc/post/3k?x=1", "at://did:plc:abc/app.bsky.feed.post/3k"),
            ("https://bsky.app/profile/did:plc:abc/lists/3k/", "at://did:plc:abc/app.bsky.graph.list/3k"),
            ("https://bsky.app/profile/did:plc:abc/feed/3k", "at://did:plc:abc/app.bsky.feed.generator/3k"),
        ] {
            assert_eq!(Asked::read(text).map(|asked| asked.to_string()).as_deref(), Ok(read), "{text}");
        }
    }

    #[test]
    fn what_names_nothing_is_refused() {
        let long = format!("did:plc:{}", "a".repeat(2048));
        let longer = "a".repeat(5000);
        for (text, error) in [
            ("", AskedError::NoAccount),
            ("alice", AskedError::NoAccount),
            ("did:plc:", AskedError::NoAccount),
            ("did:PLC:abc", AskedError::NoAccount),
            ("did:plc:a'b", AskedError::NoAccount),
            ("did:plc:abc\0", AskedError::NoAccount),
            ("-a.test", AskedError::NoAccount),
            ("a..test", AskedError::NoAccount),
            (&long, AskedError::NoAccount),
            ("at://did:plc:abc/posts/3k", AskedError::NoPath),
            ("at://did:plc:abc/app.bsky.feed.post/3k/x", AskedError::NoPath),
            ("at://did:plc:abc/app.bsky.feed.post/3k?x", AskedError::NoPath),
            ("https://bsky.app/profile/did:plc:abc/likes/3k", AskedError::NoPath),
            (&longer, AskedError::TooLong),
        ] {
            assert_eq!(Asked::read(text), Err(error), "{text}");
        }
    }
}
