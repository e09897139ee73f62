//! The path under which a reverse proxy offers the dashboard.

use std::fmt;

use super::value::Value;

/// A path of whole segments, such as `/firehose`; empty for the root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BasePath(String);

// === impl BasePath ===

impl BasePath {
    /// The first segments of the dashboard's own routes. A base path must not begin with one: without the base path, as a
    /// proxy that strips it asks, `/api/metrics` would mean two things.
    pub const RESERVED: [&str; 9] =
        ["api", "assets", "health", "messages", "queue", "ready", "reset", "simulate", "ws"];

    /// Returns the path as what stands before a route: without a slash at its end, empty for the root.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.0
    }

    /// Returns the path as a folder, such as `/firehose/`.
    #[must_use]
    pub fn folder(&self) -> String {
        format!("{}/", self.0)
    }

    /// Says whether it is the root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns a path without the base path; `None` where it is not under it, or the base path is the root.
    #[must_use]
    pub fn strip<'p>(&self, path: &'p str) -> Option<&'p str> {
        let rest = path.strip_prefix(&self.0).filter(|_| !self.is_root())?;
        match rest {
            "" => Some("/"),
            _ => rest.starts_with('/').then_some(rest),
        }
    }
}

impl fmt::Display for BasePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_root() { "/" } else { &self.0 })
    }
}

impl Value for BasePath {
    const ALLOWED: &'static str = "a path such as /firehose: segments of letters, digits, `-`, `_`, `.` and `~`, no trailing slash, \
         not starting with a route of the dashboard such as /api";

    fn parse(text: &str) -> Option<Self> {
        let path = text.strip_prefix('/')?;
        if path.is_empty() {
            return Some(Self::default());
        }
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
        let is_segment = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(is_plain);
        let first = path.split('/').next()?;
        let allowed = path.len() < 200 && path.split('/').all(is_segment) && !Self::RESERVED.contains(&first);
        allowed.then(|| Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_path_is_made_of_whole_plain_segments() {
        for (text, prefix, folder) in [
            ("/", "", "/"),
            ("/firehose", "/firehose", "/firehose/"),
            ("/a/b-c_d.e~1", "/a/b-c_d.e~1", "/a/b-c_d.e~1/"),
            ("/apis", "/apis", "/apis/"),
            ("/x/api", "/x/api", "/x/api/"),
            ("/...", "/...", "/.../"),
        ] {
            let path = BasePath::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((path.prefix(), path.folder().as_str(), path.to_string().as_str()), (prefix, folder, text));
        }
        for bad in [
            "",
            "firehose",
            "/firehose/",
            "//",
            "//evil.test",
            "/a//b",
            "/..",
            "/a/../b",
            "/.",
            "/a/.",
            "/a b",
            "/a%2e",
            "/a;b",
            "/a?b",
            "/a#b",
            "/a\"b",
            "/<a>",
            "/é",
            "/a\\b",
            "/api",
            "/api/x",
            "/assets",
            "/health",
            "/ready",
            "/messages",
            "/queue/x",
            "/ws",
            "/simulate",
            "/reset",
        ] {
            assert_eq!(BasePath::parse(bad), None, "{bad:?}");
        }
        assert_eq!(BasePath::parse(&format!("/{}", "a".repeat(200))), None);
    }

    #[test]
    fn only_what_is_under_it_is_stripped_and_only_once() {
        let base = BasePath::parse("/firehose").unwrap();
        for (path, stripped) in [
            ("/firehose", Some("/")),
            ("/firehose/", Some("/")),
            ("/firehose/api/metrics", Some("/api/metrics")),
            ("/firehose/firehose/ready", Some("/firehose/ready")),
            ("/firehose//evil.test", Some("//evil.test")),
            ("/firehoses/api", None),
            ("/Firehose/", None),
            ("/api/metrics", None),
            ("/", None),
            ("*", None),
            ("", None),
        ] {
            assert_eq!(base.strip(path), stripped, "{path}");
        }
        assert_eq!(BasePath::default().strip("/api/metrics"), None);
    }
}
