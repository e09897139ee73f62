//! Reads the settings from flags, environment and file, and lists what there is.

mod catalog;

use std::io::{Write as _, stdout};

use penstock_core::settings::{Layers, Settings};

use crate::cli::{Cli, SettingsFormat};
use crate::error::Error;

/// Reads where every setting's text comes from.
pub(super) fn layers(cli: &Cli) -> Result<Layers, Error> {
    let mut layers = environment();
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

/// Prints every setting, to the end or until nobody reads any more; and what is set in the environment and is none.
pub(super) fn print(format: SettingsFormat) {
    let _ = stdout().write_all(catalog::catalog(&Settings::catalog(), format).as_bytes());
    for unknown in environment().unknown_variables() {
        eprintln!("penstock: {unknown}");
    }
}

fn environment() -> Layers {
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Layers::default().environment(variables)
}
