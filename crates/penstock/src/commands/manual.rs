//! Completions for shells, and manual pages: both from the command line's own description.

use std::fs;
use std::io::{Write as _, stdout};
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::cli::{Cli, Plugin};
use crate::error::Error;

/// Prints completions, to the end or until nobody reads any more.
pub(super) fn completions(shell: Shell) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "penstock", &mut script);
    let _ = stdout().write_all(&script);
}

/// Writes a page for each command into a folder, or prints that of the binary itself.
pub(super) fn pages(folder: Option<&Path>) -> Result<(), Error> {
    let Some(folder) = folder else {
        let mut page = Vec::new();
        Man::new(Cli::command()).render(&mut page).map_err(Error::Print)?;
        let _ = stdout().write_all(&page);
        return Ok(());
    };
    let write = || {
        fs::create_dir_all(folder)?;
        clap_mangen::generate_to(Cli::command(), folder)?;
        clap_mangen::generate_to(Plugin::command(), folder)
    };
    write().map_err(|source| Error::WritePages { path: folder.to_owned(), source })
}
