//! Reads the settings from flags, environment and file, and lists what there is.

use std::fmt::Write as _;
use std::io::{Write as _, stdout};

use penstock_core::settings::{Layers, Settings};

use crate::cli::Cli;
use crate::error::Error;

/// Reads where every setting's text comes from.
pub(super) fn layers(cli: &Cli) -> Result<Layers, Error> {
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let mut layers = Layers::default().environment(variables);
    if let Some(path) = &cli.config {
        let yaml =
            std::fs::read_to_string(path).map_err(|source| Error::ReadSettingsFile { path: path.clone(), source })?;
        layers = layers.file(&path.display().to_string(), &yaml)?;
    }
    Ok(cli.set.iter().fold(layers, |layers, (path, value)| layers.flag(path, value)))
}

/// Reads and checks the settings.
pub(super) fn load(cli: &Cli) -> Result<Settings, Error> {
    Settings::load(&layers(cli)?).map_err(Error::Settings)
}

/// Prints every setting as a Markdown table, to the end or until nobody reads any more.
pub(super) fn print() {
    let _ = stdout().write_all(catalog().as_bytes());
}

fn catalog() -> String {
    let mut out =
        String::from("| setting | environment | default | allowed | what it is for |\n|---|---|---|---|---|\n");
    for field in Settings::catalog() {
        let older: String = field.older_names.iter().map(|name| format!("`{name}`, ")).collect();
        let default = field.default.map(|default| format!("`{default}`")).unwrap_or_default();
        let _ = writeln!(
            out,
            "| `{}` | {older}`{}` | {default} | {} | {} |",
            field.path,
            field.environment_name(),
            field.allowed(),
            field.doc.trim()
        );
    }
    out
}
