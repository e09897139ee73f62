//! What glibc's allocator gives back to the system.

use crate::cli::Command;

/// How glibc is told, and what: memory of a megabyte and more goes back as soon as it is freed, and so does what is free at the
/// end of a heap; and there are few heaps. By itself it raises both bounds to 32 and 64 MiB once a large buffer was freed,
/// for each heap, and makes eight heaps a core: what one burst took in each of them would stay for good.
/// See <https://sourceware.org/glibc/manual/latest/html_node/Malloc-Tunable-Parameters.html>.
const BOUNDS: [(&str, &str); 3] =
    [("MALLOC_MMAP_THRESHOLD_", "1048576"), ("MALLOC_TRIM_THRESHOLD_", "1048576"), ("MALLOC_ARENA_MAX", "4")];

/// Bounds what the allocator keeps, for the services whose memory is bounded.
///
/// glibc reads these variables before `main`, so the process replaces itself once by the same program with the variables set. Where
/// that does not succeed, or somebody set one of them, it goes on as it is.
pub(crate) fn bound(command: &Command) {
    let is_set = |(name, _): &(&str, &str)| std::env::var_os(name).is_some();
    if matches!(command, Command::Ingest | Command::Worker | Command::Heal | Command::Backfill(_))
        && !BOUNDS.iter().any(is_set)
    {
        replace();
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn replace() {
    use std::os::unix::process::CommandExt;

    let mut arguments = std::env::args_os();
    let (Ok(program), Some(name)) = (std::env::current_exe(), arguments.next()) else { return };
    // Returns only where it did not succeed.
    let _ = std::process::Command::new(program).arg0(name).args(arguments).envs(BOUNDS).exec();
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn replace() {}
