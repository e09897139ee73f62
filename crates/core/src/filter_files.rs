//! Reads the filter from the settings and the files that they name, and notices when those change.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::filter::{Collections, DidError, Dids, RuleError, Rules, entries};
use crate::settings::{Filter, Listed};

/// The largest file, in bytes: eight million DIDs.
const LARGEST: u64 = 300_000_000;

/// Why rules cannot be read.
#[derive(Debug, Error)]
pub enum FilterError {
    /// A file cannot be read.
    #[error("{field}: could not read {path}")]
    File {
        /// The setting.
        field: &'static str,
        /// The file.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// A file is too large.
    #[error("{field}: {path} has {bytes} bytes: at most {LARGEST} are read")]
    Large {
        /// The setting.
        field: &'static str,
        /// The file.
        path: String,
        /// Its size.
        bytes: u64,
    },
    /// A file names nothing. Where it is being written, the next look finds more.
    #[error("{field}: {path} is empty; write {wanted}")]
    Empty {
        /// The setting.
        field: &'static str,
        /// The file.
        path: String,
        /// What to write.
        wanted: &'static str,
    },
    /// A rule is wrong.
    #[error("{field}: {path}")]
    Rules {
        /// The setting.
        field: &'static str,
        /// The file.
        path: String,
        /// The cause.
        source: RuleError,
    },
    /// A line is no DID.
    #[error("{field}: {path}")]
    Dids {
        /// The setting.
        field: &'static str,
        /// The file.
        path: String,
        /// The cause.
        source: DidError,
    },
}

/// What tells whether files have changed: where each really is, and what the system says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched(Vec<Option<(PathBuf, Stamp)>>);

/// The inode, the length, and when its content or it itself changed.
type Stamp = (u64, u64, i64, i64);

/// Reads the rules as they are now.
///
/// # Errors
/// Names the setting and the file that cannot be read, and the rule or line that is wrong.
pub fn load(settings: &Filter) -> Result<Rules, FilterError> {
    let collections = match &settings.collections {
        Listed::List(list) => list.clone(),
        Listed::File(path) => {
            let field = "filter.collections";
            let text = read(field, path, "* for every collection")?;
            Collections::read(&text).map_err(|source| FilterError::Rules {
                field,
                path: path.display().to_string(),
                source,
            })?
        }
    };
    let repos = match &settings.repos {
        Listed::List(list) => Some(list.clone()).filter(|list| !list.is_empty()),
        Listed::File(path) => {
            let field = "filter.repos";
            let text = read(field, path, "* for every repo")?;
            if entries(&text).map(|(_, entry)| entry).eq(["*"]) { None } else { Some(dids(field, path, &text)?) }
        }
    };
    let excluded = match &settings.exclude_repos {
        Listed::List(list) => list.clone(),
        Listed::File(path) => {
            let field = "filter.excludeRepos";
            let text = read(field, path, "a comment (# none)")?;
            dids(field, path, &text)?
        }
    };
    Ok(Rules::new(collections, repos, excluded))
}

fn dids(field: &'static str, path: &Path, text: &str) -> Result<Dids, FilterError> {
    Dids::read(text).map_err(|source| FilterError::Dids { field, path: path.display().to_string(), source })
}

/// Reads a file that is not empty; one that is being written may be, and would let everything in or nothing.
fn read(field: &'static str, path: &Path, wanted: &'static str) -> Result<String, FilterError> {
    let shown = || path.display().to_string();
    let failed = |source| FilterError::File { field, path: shown(), source };
    let bytes = fs::metadata(path).map_err(failed)?.len();
    if bytes > LARGEST {
        return Err(FilterError::Large { field, path: shown(), bytes });
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    let is_comment_enough = field == "filter.excludeRepos" && !text.trim().is_empty();
    if entries(&text).next().is_none() && !is_comment_enough {
        return Err(FilterError::Empty { field, path: shown(), wanted });
    }
    Ok(text)
}

// === impl Watched ===

impl Watched {
    /// Looks at the files that the settings name.
    #[must_use]
    pub fn look(settings: &Filter) -> Self {
        let Filter { collections, repos, exclude_repos, .. } = settings;
        let paths = [collections.path(), repos.path(), exclude_repos.path()];
        Self(paths.into_iter().flatten().map(stamp).collect())
    }

    /// Says whether there is nothing that could change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A mounted ConfigMap changes by a symbolic link beside its files: so where the path leads counts as well.
fn stamp(path: &Path) -> Option<(PathBuf, Stamp)> {
    use std::os::unix::fs::MetadataExt;
    let leads_to = fs::canonicalize(path).ok()?;
    let of = fs::metadata(&leads_to).ok()?;
    let nanos = |seconds: i64, nanos: i64| seconds.wrapping_mul(1_000_000_000).wrapping_add(nanos);
    Some((leads_to, (of.ino(), of.len(), nanos(of.mtime(), of.mtime_nsec()), nanos(of.ctime(), of.ctime_nsec()))))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::settings::{Layers, Settings};

    /// A folder of its own, removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let nth = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("penstock-filter-{}-{nth}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn settings(set: &[(&str, &str)]) -> Filter {
        let layers = set.iter().fold(Layers::default(), |layers, (path, text)| layers.flag(path, *text));
        Settings::load(&layers).unwrap().filter
    }

    #[test]
    fn lists_stand_in_the_settings_or_in_files() {
        let folder = Folder::new();
        let collections = folder.write("collections", "# all but likes\napp.bsky.*\n!app.bsky.feed.like # too many\n");
        let repos = folder.write("repos", "did:web:a\ndid:web:b, did:web:c\n");
        let at = |path: &Path| format!("@{}", path.display());
        let in_files = settings(&[("filter.collections", &at(&collections)), ("filter.repos", &at(&repos))]);
        let in_place = settings(&[
            ("filter.collections", "app.bsky.*,!app.bsky.feed.like"),
            ("filter.repos", "did:web:a,did:web:b,did:web:c"),
        ]);
        assert_eq!(load(&in_files).unwrap(), load(&in_place).unwrap());
        assert!(load(&settings(&[])).unwrap().is_everything());
        fs::write(&collections, "*\n").unwrap();
        fs::write(&repos, "*\n").unwrap();
        assert!(load(&in_files).unwrap().is_everything());
    }

    #[test]
    fn what_cannot_be_read_is_an_error_that_names_setting_file_and_line() {
        let folder = Folder::new();
        let said = |field: &str, text: &str| {
            let path = folder.write("list", text);
            let error = load(&settings(&[(field, &format!("@{}", path.display()))])).unwrap_err();
            let said = crate::causes::chain(&error);
            assert!(said.contains(field) && said.contains("/list"), "{said}");
            said
        };
        assert!(said("filter.collections", "app.bsky.*\napp.bsky").contains("rule \"app.bsky\""));
        assert!(said("filter.repos", "did:web:a\nalice").contains("line 2: \"alice\""));
        assert!(said("filter.excludeRepos", "*").contains("line 1: \"*\""), "nobody means to leave everything out");
        // An editor may have emptied it, to write it anew.
        for field in ["filter.collections", "filter.repos", "filter.excludeRepos"] {
            assert!(said(field, "").contains("is empty"), "{field}");
        }
        assert!(said("filter.repos", "# nobody yet").contains("is empty"));
        let none = folder.write("none", "# none\n");
        assert!(load(&settings(&[("filter.excludeRepos", &format!("@{}", none.display()))])).unwrap().is_everything());
        let missing = load(&settings(&[("filter.repos", "@/nowhere/at/all")])).unwrap_err();
        assert_eq!(missing.to_string(), "filter.repos: could not read /nowhere/at/all");
    }

    #[test]
    fn a_bad_list_in_the_settings_names_what_is_wrong() {
        let said =
            |field: &str, text: &str| Settings::load(&Layers::default().flag(field, text)).unwrap_err().to_string();
        let rule = said("filter.collections", "app.bsky.*,app.bsky");
        assert!(rule.starts_with("filter.collections (flag): ") && rule.contains("rule \"app.bsky\":"), "{rule}");
        assert!(said("filter.repos", "did:web:a,alice").contains("\"alice\" is no DID"));
        assert!(said("filter.repos", "@").contains("the path of one file"));
        assert!(said("filter.excludeRepos", "*").contains("filter.excludeRepos"));
    }

    #[test]
    fn every_kind_of_change_is_noticed_and_nothing_else_is() {
        let folder = Folder::new();
        folder.write("one/collections", "app.bsky.*\n");
        folder.write("two/collections", "app.bsky.*\n");
        symlink("one", folder.0.join("..data")).unwrap();
        symlink("..data/collections", folder.0.join("collections")).unwrap();
        let filter = settings(&[("filter.collections", &format!("@{}/collections", folder.0.display()))]);
        let before = Watched::look(&filter);
        assert_eq!(before, Watched::look(&filter));
        assert!(!before.is_empty() && Watched::look(&settings(&[])).is_empty());
        // As the kubelet does it.
        symlink("two", folder.0.join("..data_tmp")).unwrap();
        fs::rename(folder.0.join("..data_tmp"), folder.0.join("..data")).unwrap();
        let swapped = Watched::look(&filter);
        assert_ne!(before, swapped);
        folder.write("new", "app.bsky.*\n");
        fs::rename(folder.0.join("new"), folder.0.join("two/collections")).unwrap();
        let renamed = Watched::look(&filter);
        assert_ne!(swapped, renamed);
        fs::remove_file(folder.0.join("two/collections")).unwrap();
        assert_ne!(renamed, Watched::look(&filter));
    }
}
