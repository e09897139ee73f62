//! Where a setting's text comes from: flags before environment before file.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value as Json;
use thiserror::Error;

/// The variables of the systems before whose number is one of seconds.
const IN_SECONDS: [&str; 1] = ["BATCH_TIMEOUT"];

/// The texts of all settings, from every source, not yet read.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    flags: BTreeMap<String, String>,
    environment: BTreeMap<String, String>,
    file: BTreeMap<String, String>,
    below: BTreeMap<String, String>,
    file_name: String,
}

/// Where a text came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A flag of the command line.
    Flag,
    /// A variable of the environment, by name.
    Environment(String),
    /// The settings file, by name.
    File(String),
    /// Nobody set it.
    Default,
}

/// Why a settings file cannot be read.
#[derive(Debug, Error)]
pub enum FileError {
    /// The text is not YAML.
    #[error("settings file {name} is not valid yaml: {reason}")]
    Yaml {
        /// The file's name.
        name: String,
        /// What the parser found, without an excerpt: the file may hold a password.
        reason: String,
    },
    /// The top is not a mapping of sections.
    #[error("settings file {name}: {path} must be a mapping, a list of scalars, or a scalar")]
    Shape {
        /// The file's name.
        name: String,
        /// The path of the value.
        path: String,
    },
}

// === impl Layers ===

impl Layers {
    /// Takes the variables of an environment; empty ones count as not set.
    #[must_use]
    pub fn environment(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let lines = variables.into_iter().map(|(name, value)| (name, without_line_end(value)));
        let set = lines.filter(|(name, value)| !value.is_empty() && !is_service_link(name, value));
        self.environment.extend(set.map(with_unit));
        self
    }

    /// Takes one flag, by the setting's path.
    #[must_use]
    pub fn flag(mut self, path: &str, value: impl Into<String>) -> Self {
        self.flags.insert(path.to_owned(), without_line_end(value.into()));
        self
    }

    /// Takes what stands in the place of a default, below everything that somebody set.
    #[must_use]
    pub fn below(mut self, path: &str, value: impl Into<String>) -> Self {
        self.below.insert(path.to_owned(), value.into());
        self
    }

    /// Takes the text of a settings file.
    ///
    /// # Errors
    /// The text is not YAML, or not a mapping of sections.
    pub fn file(mut self, name: &str, yaml: &str) -> Result<Self, FileError> {
        name.clone_into(&mut self.file_name);
        let tree: Json = serde_saphyr::from_str(yaml).map_err(|error| FileError::Yaml {
            name: name.to_owned(),
            reason: error.location().map_or_else(
                || "see its syntax".to_owned(),
                |place| format!("line {}, column {}", place.line(), place.column()),
            ),
        })?;
        match tree {
            Json::Null => {}
            tree @ Json::Object(_) => self.flatten(String::new(), tree)?,
            _ => return Err(FileError::Shape { name: name.to_owned(), path: "the top".to_owned() }),
        }
        Ok(self)
    }

    /// Finds the text of a setting. Ours (`PENSTOCK_…`) goes before the older names of the environment.
    pub(super) fn find(&self, path: &str, older_names: &[&str]) -> Option<(&str, Origin)> {
        if let Some(value) = self.flags.get(path) {
            return Some((value, Origin::Flag));
        }
        let ours = environment_name(path);
        for name in [ours.as_str()].iter().chain(older_names) {
            if let Some(value) = self.environment.get(*name) {
                return Some((value, Origin::Environment((*name).to_owned())));
            }
        }
        let file = self.file.get(path).map(|value| (value.as_str(), Origin::File(self.file_name.clone())));
        file.or_else(|| self.below.get(path).map(|value| (value.as_str(), Origin::Default)))
    }

    /// Says whether somebody set a setting, whatever to.
    #[must_use]
    pub fn sets(&self, path: &str, older_name: Option<&str>) -> bool {
        self.find(path, older_name.as_slice()).is_some_and(|(_, origin)| origin != Origin::Default)
    }

    /// Says where the text of a setting came from, if there is one.
    #[must_use]
    pub fn origin(&self, path: &str, older_names: &[&str]) -> Option<Origin> {
        self.find(path, older_names).map(|(_, origin)| origin)
    }

    /// Leaves the environment out of a setting, whichever of its names is set; returns the variables that were.
    pub fn pass_over(&mut self, path: &str, older_names: &[&str]) -> Vec<String> {
        let ours = environment_name(path);
        let names = [ours.as_str()].into_iter().chain(older_names.iter().copied());
        names.filter(|name| self.environment.remove(*name).is_some()).map(str::to_owned).collect()
    }

    /// The same without some variables of the environment.
    pub(super) fn without(mut self, variables: &[&str]) -> Self {
        self.environment.retain(|name, _| !variables.contains(&name.as_str()));
        self
    }

    /// Returns what a variable of the environment is set to.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str)
    }

    /// Reads a variable as if it were set to something else.
    pub(super) fn read_as(&mut self, name: &str, value: &str) {
        self.environment.insert(name.to_owned(), value.to_owned());
    }

    /// Lists the variables that are set, with their values.
    pub(super) fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Lists what the file and the flags name, to be held against what there is.
    pub(super) fn named(&self) -> impl Iterator<Item = (&str, Origin)> {
        let file = self.file.keys().map(|path| (path.as_str(), Origin::File(self.file_name.clone())));
        self.flags.keys().map(|path| (path.as_str(), Origin::Flag)).chain(file)
    }

    fn flatten(&mut self, path: String, value: Json) -> Result<(), FileError> {
        let scalar = |value: &Json| match value {
            Json::String(text) => Some(without_line_end(text.clone())),
            Json::Bool(_) | Json::Number(_) => Some(value.to_string()),
            _ => None,
        };
        match value {
            Json::Null => {}
            Json::Object(map) => {
                for (key, value) in map {
                    let path = if path.is_empty() { key } else { format!("{path}.{key}") };
                    self.flatten(path, value)?;
                }
            }
            Json::Array(items) => {
                let items: Option<Vec<_>> = items.iter().map(scalar).collect();
                let items =
                    items.ok_or_else(|| FileError::Shape { name: self.file_name.clone(), path: path.clone() })?;
                self.file.insert(path, items.join(","));
            }
            value => {
                self.file.insert(path, scalar(&value).unwrap_or_default());
            }
        }
        Ok(())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Environment(name) => f.write_str(name),
            Self::File(name) => f.write_str(name),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Returns the name of a setting's variable: `ingest.batchEvents` is `PENSTOCK_INGEST_BATCH_EVENTS`.
#[must_use]
pub fn environment_name(path: &str) -> String {
    let mut name = String::from("PENSTOCK_");
    for character in path.chars() {
        match character {
            '.' => name.push('_'),
            _ => {
                if character.is_ascii_uppercase() {
                    name.push('_');
                }
                name.push(character.to_ascii_uppercase());
            }
        }
    }
    name
}

/// Cuts the end of the line that `echo` and editors leave behind a password in a Secret or a file: no setting ends with one.
#[must_use]
pub fn without_line_end(mut text: String) -> String {
    text.truncate(text.trim_end_matches(['\n', '\r']).len());
    text
}

/// Kubernetes puts `REDIS_PORT=tcp://10.0.0.1:6379` into every pod beside a Service that is called redis.
fn is_service_link(name: &str, value: &str) -> bool {
    name.ends_with("_PORT") && ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme))
}

/// Gives a number the unit that its variable has in the system before.
fn with_unit((name, value): (String, String)) -> (String, String) {
    let seconds =
        value.trim().parse().ok().filter(|seconds: &f64| IN_SECONDS.contains(&name.as_str()) && *seconds >= 0.0);
    let value = seconds.map_or(value, |seconds| format!("{seconds}s"));
    (name, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_go_before_environment_before_file() {
        let layers =
            Layers::default().file("s.yaml", "redis: {url: from-file, keyPrefix: p}\nlist: {a: [1, x]}").unwrap();
        assert_eq!(layers.find("redis.url", &[]), Some(("from-file", Origin::File("s.yaml".into()))));
        assert_eq!(layers.find("list.a", &[]).unwrap().0, "1,x");
        let layers = layers.environment([("REDIS_URL".to_owned(), "from-env".to_owned())]);
        assert_eq!(layers.find("redis.url", &["REDIS_URL"]).unwrap().0, "from-env");
        let layers = layers.environment([("PENSTOCK_REDIS_URL".to_owned(), "ours".to_owned())]);
        assert_eq!(layers.find("redis.url", &["REDIS_URL"]).unwrap().0, "ours");
        let layers = layers.below("redis.url", "instead of the default");
        assert_eq!(layers.find("redis.url", &["REDIS_URL"]).unwrap().0, "ours");
        assert_eq!(Layers::default().below("a.b", "x").find("a.b", &[]), Some(("x", Origin::Default)));
        let layers = layers.flag("redis.url", "from-flag");
        assert_eq!(layers.find("redis.url", &["REDIS_URL"]), Some(("from-flag", Origin::Flag)));
    }

    #[test]
    fn a_setting_that_the_environment_is_left_out_of_keeps_flag_and_file() {
        let variables = [("REDIS_URL", "a"), ("PENSTOCK_REDIS_URL", "b"), ("REDIS_HOST", "c")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut layers = Layers::default().file("s.yaml", "redis: {url: from-file}").unwrap().environment(variables);
        let catalog = crate::settings::Settings::catalog();
        let field = catalog.iter().find(|field| field.path == "redis.url").unwrap();
        assert_eq!(layers.pass_over(field.path, field.older_names), ["PENSTOCK_REDIS_URL", "REDIS_URL"]);
        assert_eq!(layers.origin("redis.url", field.older_names), Some(Origin::File("s.yaml".into())));
        assert_eq!(layers.origin("redis.host", &["REDIS_HOST"]), Some(Origin::Environment("REDIS_HOST".into())));
        assert_eq!(layers.pass_over(field.path, field.older_names), Vec::<String>::new());
    }

    #[test]
    fn the_end_of_a_line_is_no_part_of_a_value() {
        let variables = [("REDIS_URL", "redis://:a b@h\r\n"), ("REDIS_PASSWORD", " hunter2 \n"), ("REDIS_HOST", "\n")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let layers = Layers::default().environment(variables).flag("dashboard.readToken", "token\n");
        let layers = layers.file("s.yaml", "dashboard: {adminToken: \"secret\\n\", list: [\"a\\n\", b]}").unwrap();
        let found = |path: &str, name: &str| layers.find(path, &[name]).map(|(value, _)| value);
        assert_eq!(found("redis.url", "REDIS_URL"), Some("redis://:a b@h"));
        assert_eq!(found("redis.password", "REDIS_PASSWORD"), Some(" hunter2 "), "a space may be meant");
        assert_eq!(found("redis.host", "REDIS_HOST"), None);
        assert_eq!(found("dashboard.readToken", "-"), Some("token"));
        assert_eq!(found("dashboard.adminToken", "-"), Some("secret"));
        assert_eq!(found("dashboard.list", "-"), Some("a,b"));
    }

    #[test]
    fn what_kubernetes_injects_is_no_setting() {
        let layers = Layers::default().environment([
            ("REDIS_PORT".to_owned(), "tcp://10.96.0.5:6379".to_owned()),
            ("REDIS_HOST".to_owned(), String::new()),
        ]);
        assert_eq!(layers.find("redis.port", &["REDIS_PORT"]), None);
        assert_eq!(layers.find("redis.host", &["REDIS_HOST"]), None);
    }

    #[test]
    fn a_broken_file_is_named_without_its_text() {
        let error = Layers::default().file("s.yaml", "redis: {url: 'redis://:hunter2@h").unwrap_err().to_string();
        assert!(error.contains("s.yaml") && !error.contains("hunter2"), "{error}");
        assert!(Layers::default().file("s.yaml", "- a").is_err());
        assert!(Layers::default().file("s.yaml", "a: [{b: 1}]").is_err());
        assert!(Layers::default().file("s.yaml", "").is_ok());
    }

    #[test]
    fn a_bare_off_is_off() {
        for off in ["off", "'off'", "Off", "false"] {
            let layers =
                Layers::default().file("s.yaml", &format!("verify: {{mode: {off}, signatures: {off}}}")).unwrap();
            let settings = crate::settings::Settings::load(&layers.flag("redis.url", "redis://a")).unwrap();
            assert_eq!(settings.verify.mode, crate::settings::Verification::Off, "{off}");
        }
    }

    #[test]
    fn variable_names_follow_the_path() {
        assert_eq!(environment_name("ingest.batchEvents"), "PENSTOCK_INGEST_BATCH_EVENTS");
    }
}
