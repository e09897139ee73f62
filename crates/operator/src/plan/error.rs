//! Why a pipeline is invalid as it is written.

use std::fmt;

use thiserror::Error;

/// Why a pipeline is invalid as it is written.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PlanError {
    /// The name cannot be the beginning of a Service's name.
    #[error(
        "metadata.name {name:?} is not allowed: use at most 50 characters of a-z, 0-9 and -, begin with a letter and do not \
         end with -. Delete the pipeline and create it under another name"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// The object is not from an API server.
    #[error("the pipeline has no namespace or no uid, so it cannot own anything: apply it to a cluster")]
    Identity,
    /// There is no image to run.
    #[error("image.reference is not set and the operator does not know its own image: set image.reference")]
    Image,
    /// Fields have values that are not allowed.
    #[error("{}", list(.0))]
    Fields(Vec<BadField>),
    /// Secrets or keys in them are missing.
    #[error("{}", list(.0))]
    Secrets(Vec<MissingSecret>),
    /// The settings cannot be written as YAML.
    #[error("could not write the settings as yaml: {0}")]
    WriteSettings(String),
}

/// A field whose value is not allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadField {
    /// The field, from `spec` on.
    pub field: String,
    /// What is wrong, and what is allowed.
    pub message: String,
}

/// A Secret, or a key in it, that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingSecret {
    /// The field that names it.
    pub field: String,
    /// The Secret's name.
    pub name: String,
    /// The key.
    pub key: String,
}

// === impl PlanError ===

impl PlanError {
    /// Returns the reason for the condition Ready, in one word.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Name { .. } => "InvalidName",
            Self::Image => "ImageUnknown",
            Self::Secrets(_) => "SecretMissing",
            Self::Identity | Self::Fields(_) | Self::WriteSettings(_) => "InvalidSpec",
        }
    }
}

impl fmt::Display for BadField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

impl fmt::Display for MissingSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, name, key } = self;
        write!(f, "{field}: Secret {name} needs a non-empty key {key}: create it in the pipeline's namespace")
    }
}

fn list<T: fmt::Display>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(T::to_string).collect();
    items.join("; ")
}
