//! Where a password comes from.

use std::process::Stdio;
use std::time::Duration;

use penstock_core::settings::Postgres;
use thiserror::Error;
use tokio::process::Command;
use tokio::time::timeout;

/// How long a command may take that prints the password.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much of what a command says of its failure is told.
const TOLD: usize = 200;

/// Where the password of a connection comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PasswordSource {
    /// The address, or where PostgreSQL's own programs look for one.
    #[default]
    Address,
    /// A file, without the end of its line.
    File(String),
    /// What a program prints, with its arguments.
    Command(String),
}

/// Why there is no password.
#[derive(Debug, Error)]
pub enum PasswordError {
    /// The file cannot be read.
    #[error("could not read postgres.passwordFile {file}: {why}")]
    Read {
        /// The file.
        file: String,
        /// Why.
        why: String,
    },
    /// The file or what the command printed is empty.
    #[error("{setting} gave an empty password")]
    Empty {
        /// The setting.
        setting: &'static str,
    },
    /// The command cannot be started.
    #[error("could not run postgres.passwordCommand ({program}): {why}")]
    Run {
        /// The program, without its arguments.
        program: String,
        /// Why.
        why: String,
    },
    /// The command failed.
    #[error("postgres.passwordCommand ({program}) failed with {status}: {said}")]
    Failed {
        /// The program, without its arguments.
        program: String,
        /// How it ended.
        status: String,
        /// The last line that it wrote to standard error.
        said: String,
    },
    /// The command did not end in time.
    #[error("postgres.passwordCommand ({program}) did not end within {PATIENCE:?}")]
    Slow {
        /// The program, without its arguments.
        program: String,
    },
}

// === impl PasswordSource ===

impl PasswordSource {
    /// Reads the settings.
    #[must_use]
    pub fn of(settings: &Postgres) -> Self {
        match (&settings.password_file, &settings.password_command) {
            (Some(file), _) => Self::File(file.clone()),
            (None, Some(command)) => Self::Command(command.clone()),
            (None, None) => Self::Address,
        }
    }

    /// Reads the password as it is now; none where it is in the address.
    ///
    /// # Errors
    /// The file cannot be read, the command fails or takes too long, or either gives nothing.
    pub async fn read(&self) -> Result<Option<String>, PasswordError> {
        let (text, setting) = match self {
            Self::Address => return Ok(None),
            Self::File(file) => {
                let text = tokio::fs::read_to_string(file).await;
                let why = |why: std::io::Error| PasswordError::Read { file: file.clone(), why: why.to_string() };
                (text.map_err(why)?, "postgres.passwordFile")
            }
            Self::Command(command) => (run(command).await?, "postgres.passwordCommand"),
        };
        let password = text.trim_end_matches(['\r', '\n']);
        if password.is_empty() { Err(PasswordError::Empty { setting }) } else { Ok(Some(password.to_owned())) }
    }
}

async fn run(command: &str) -> Result<String, PasswordError> {
    let mut words = command.split_whitespace();
    let program = words.next().unwrap_or_default().to_owned();
    let why = |why: std::io::Error| PasswordError::Run { program: program.clone(), why: why.to_string() };
    let mut process = Command::new(&program);
    process.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let ended = timeout(PATIENCE, process.output()).await;
    let output = ended.map_err(|_| PasswordError::Slow { program: program.clone() })?.map_err(why)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing on standard error");
        let said = said.trim().chars().filter(|c| !c.is_control()).take(TOLD).collect();
        return Err(PasswordError::Failed { program, status: output.status.to_string(), said });
    }
    String::from_utf8(output.stdout)
        .map_err(|_| PasswordError::Run { program, why: "it printed something that is not UTF-8".to_owned() })
}
