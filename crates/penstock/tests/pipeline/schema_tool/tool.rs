//! The AppView's schema tool: `drizzle-kit push` as its start runs it, without a terminal.

use std::env;
use std::path::PathBuf;
use std::process::Stdio;

use tokio::process::Command;
use tokio::time::timeout;

use crate::rig::PATIENCE;

/// Which drizzle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Edition {
    /// The one in the AppView's image.
    Deployed,
    /// The newest that its package.json lets in.
    Newest,
}

/// Which version of the AppView's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Present,
    /// One more column on posts and on likes, one more index, one more table.
    Next,
}

/// What became of a push, by its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// "No changes detected".
    NothingToChange,
    /// "Changes applied".
    Applied,
    /// Neither: it would have asked somebody, and ends well all the same.
    GaveUp,
}

/// The tool in one of its editions, on one database.
pub(crate) struct SchemaTool {
    folder: PathBuf,
    database: String,
}

// === impl Edition ===

impl Edition {
    pub(crate) const ALL: [Self; 2] = [Self::Deployed, Self::Newest];

    fn folder(self) -> PathBuf {
        let folder = env::var_os("PENSTOCK_SCHEMA_TOOL");
        let folder =
            folder.unwrap_or_else(|| panic!("scripts/test-schema-tool.sh installs the tool and says where it is"));
        PathBuf::from(folder).join(match self {
            Self::Deployed => "deployed",
            Self::Newest => "newest",
        })
    }
}

// === impl SchemaTool ===

impl SchemaTool {
    pub(crate) fn new(edition: Edition, database: &str) -> Self {
        Self { folder: edition.folder(), database: database.to_owned() }
    }

    /// Runs it as the AppView's start does.
    pub(crate) async fn push(&self, version: Version) -> Outcome {
        self.run(version, &[]).await
    }

    /// Runs it with `--force`, as somebody may who saw it change nothing.
    pub(crate) async fn force(&self, version: Version) -> Outcome {
        self.run(version, &["--", "--force"]).await
    }

    async fn run(&self, version: Version, arguments: &[&str]) -> Outcome {
        let mut command = Command::new("npm");
        command.args(["run", "--silent", "db:push"]).args(arguments).current_dir(&self.folder);
        command.env("DATABASE_URL", &self.database).env("NO_COLOR", "1").env("npm_config_update_notifier", "false");
        command.env("APPVIEW_VERSION", if version == Version::Next { "next" } else { "present" });
        let done = timeout(PATIENCE, command.stdin(Stdio::null()).kill_on_drop(true).output()).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        // It ends so whatever it did; a start takes nothing else for a failure.
        assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
        match (said.contains("No changes detected"), said.contains("Changes applied")) {
            (true, false) => Outcome::NothingToChange,
            (false, true) => Outcome::Applied,
            (false, false) => Outcome::GaveUp,
            (true, true) => panic!("what is it now?\n{said}"),
        }
    }
}
