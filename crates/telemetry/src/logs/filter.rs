//! Levels and filters as they are given, and what is wrong with one.

use tracing_subscriber::filter::EnvFilter;

use crate::TelemetryError;

/// Libraries that are silent, and at warn where we are at debug: they would drown our lines, or say the same again. A filter
/// that names them overrides.
const NOISY: &[&str] = &[
    "fred",
    "h2",
    "hyper",
    "hyper_util",
    "kube",
    "opentelemetry",
    "rustls",
    "sqlx",
    "tokio_tungstenite",
    "tonic",
    "tower",
    "tungstenite",
];

/// The parts of Penstock that log, as a filter names them.
const PARTS: &[&str] = &[
    "penstock",
    "penstock_autoscale",
    "penstock_console",
    "penstock_core",
    "penstock_dashboard",
    "penstock_doctor",
    "penstock_heal",
    "penstock_identity",
    "penstock_ingest",
    "penstock_local",
    "penstock_lookup",
    "penstock_operator",
    "penstock_postgres",
    "penstock_replay",
    "penstock_repo",
    "penstock_telemetry",
    "penstock_wire",
    "penstock_worker",
];

/// Says whether a filter is one that [`init_logs`](crate::init_logs) takes.
#[must_use]
pub fn is_log_filter(filter: &str) -> bool {
    parse(filter).is_ok()
}

/// Reads a level in any case, without lines of libraries, or a filter as it is.
///
/// # Errors
/// [`TelemetryError::ParseLogFilter`], with what is wrong.
pub(crate) fn parse(filter: &str) -> Result<EnvFilter, TelemetryError> {
    let refused = |why: String| TelemetryError::ParseLogFilter { filter: filter.to_owned(), why };
    let directives = directives(filter.trim()).map_err(refused)?;
    EnvFilter::try_new(directives).map_err(|_| refused("a span or field in brackets cannot be read".to_owned()))
}

/// Writes a level or filter as the library takes it, or says what is wrong with it.
fn directives(filter: &str) -> Result<String, String> {
    let parts = split(filter)?;
    if let [word] = parts.as_slice()
        && let Some(level) = level(word)
    {
        // What a library has to say of a server or a request, whoever asked it says too, with the address and once.
        let libraries = if matches!(level, "debug" | "trace") { "warn" } else { "off" };
        let noisy = NOISY.iter().map(|library| format!(",{library}={libraries}"));
        return Ok(std::iter::once(level.to_owned()).chain(noisy).collect());
    }
    let mut directives = Vec::new();
    let mut general = None;
    for part in parts {
        let written = match part.rsplit_once('=').filter(|(_, level)| !level.contains([']', '}'])) {
            Some((place, word)) => {
                check_place(place.trim(), part)?;
                format!("{}={}", place.trim(), level_after(word.trim(), part)?)
            }
            None => {
                let level = level(part).ok_or_else(|| no_level(part))?;
                if let Some(other) = general.replace(part) {
                    return Err(format!("{other:?} and {part:?} are both for everything: give one of them"));
                }
                level.to_owned()
            }
        };
        directives.push(written);
    }
    Ok(directives.join(","))
}

/// Splits a filter at its commas, but for those in brackets.
fn split(filter: &str) -> Result<Vec<&str>, String> {
    if filter.is_empty() {
        return Err("it is empty".to_owned());
    }
    let mut depth = 0_i32;
    let parts = filter.split(|character| {
        match character {
            '[' | '{' => depth += 1,
            ']' | '}' => depth -= 1,
            _ => {}
        }
        character == ',' && depth == 0
    });
    let parts: Vec<&str> = parts.map(str::trim).collect();
    if depth != 0 {
        return Err("a bracket is not closed".to_owned());
    }
    if parts.contains(&"") {
        return Err("there is nothing before or after a comma".to_owned());
    }
    Ok(parts)
}

/// Checks what stands before the `=` of a directive: a module, a span in brackets, or both.
fn check_place(place: &str, directive: &str) -> Result<(), String> {
    let module = place.split('[').next().unwrap_or_default();
    if place.is_empty() {
        return Err(format!("{directive:?} names no module before its ="));
    }
    if !module.chars().all(|character| character.is_ascii_alphanumeric() || "_-:".contains(character)) {
        return Err(format!("{module:?} is not a module's name"));
    }
    let crate_name = module.split(':').next().unwrap_or_default();
    if crate_name.starts_with("penstock") && !PARTS.contains(&crate_name) {
        return Err(format!("{crate_name:?} is no part of Penstock: there are {}", PARTS.join(", ")));
    }
    Ok(())
}

fn level_after(word: &str, directive: &str) -> Result<&'static str, String> {
    match word {
        "" => Err(format!("{directive:?} has no level after its =")),
        word => level(word).ok_or_else(|| format!("{word:?} in {directive:?} is not a level")),
    }
}

/// Says what is wrong with a part that is no level and has none.
fn no_level(part: &str) -> String {
    if part.starts_with("penstock") || part.contains([':', '_', '[']) {
        format!("{part:?} has no level: write {part}=debug")
    } else {
        format!("{part:?} is not a level")
    }
}

fn level(word: &str) -> Option<&'static str> {
    Some(match word.to_ascii_lowercase().as_str() {
        "off" => "off",
        "critical" | "fatal" | "error" => "error",
        "warning" | "warn" => "warn",
        "info" => "info",
        "debug" => "debug",
        "trace" | "notset" => "trace",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_are_read() {
        for (given, directives) in [
            ("info,penstock_ingest=debug", "info,penstock_ingest=debug"),
            (" info , penstock_ingest = DEBUG ", "info,penstock_ingest=debug"),
            ("WARNING,penstock=Info", "warn,penstock=info"),
            ("penstock_worker::store=trace,off", "penstock_worker::store=trace,off"),
            ("info,sqlx=debug,hyper-util=error", "info,sqlx=debug,hyper-util=error"),
            ("warn,penstock_operator[operator.reconcile]=debug", "warn,penstock_operator[operator.reconcile]=debug"),
            ("info,[batch{entries=5}]=debug", "info,[batch{entries=5}]=debug"),
        ] {
            assert_eq!(super::directives(given.trim()).as_deref(), Ok(directives), "{given}");
            assert!(is_log_filter(given), "{given}");
        }
    }

    #[test]
    fn what_is_no_level_or_filter_is_refused_with_what_is_wrong() {
        for (given, why) in [
            ("", "it is empty"),
            ("  ", "it is empty"),
            ("verbose", r#""verbose" is not a level"#),
            ("5", r#""5" is not a level"#),
            ("info debug", r#""info debug" is not a level"#),
            ("info\ndebug", r#""info\ndebug" is not a level"#),
            ("nonsense=", r#""nonsense=" has no level after its ="#),
            ("info,nonsense=", r#""nonsense=" has no level after its ="#),
            ("info,penstock=loud", r#""loud" in "penstock=loud" is not a level"#),
            ("info,penstock=3", r#""3" in "penstock=3" is not a level"#),
            ("=debug", r#""=debug" names no module before its ="#),
            ("info,a=b=debug", r#""a=b" is not a module's name"#),
            ("info;penstock=debug", r#""info;penstock" is not a module's name"#),
            ("info,penstock ingest=debug", r#""penstock ingest" is not a module's name"#),
            ("info,penstock_injest=debug", r#""penstock_injest" is no part of Penstock: there are penstock, "#),
            ("info,penstock_ingest", r#""penstock_ingest" has no level: write penstock_ingest=debug"#),
            ("penstock", r#""penstock" has no level: write penstock=debug"#),
            ("info,debug", r#""info" and "debug" are both for everything"#),
            ("info,", "there is nothing before or after a comma"),
            (",info", "there is nothing before or after a comma"),
            ("info,,penstock=debug", "there is nothing before or after a comma"),
            ("info,[batch=debug", "a bracket is not closed"),
            ("info,[batch]]=debug", "a bracket is not closed"),
            ("info,[batch]", r#""[batch]" has no level: write [batch]=debug"#),
            ("info,[batch{entries=5,rows}]=debug", "a span or field in brackets cannot be read"),
            ("info,penstock[a]b=debug", "a span or field in brackets cannot be read"),
        ] {
            let error = parse(given).expect_err(given).to_string();
            assert!(error.contains(why), "{given:?}: {error}");
            assert!(
                error.ends_with("error, warn, info, debug, trace, off, or a filter such as info,penstock_ingest=debug")
            );
        }
    }

    #[test]
    fn the_parts_are_the_crates() {
        let crates = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).unwrap();
        let names = crates.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names
            .filter(|name| name != "bench")
            .map(|name| if name == "penstock" { name } else { format!("penstock_{name}") })
            .collect();
        names.sort();
        assert_eq!(names, PARTS);
    }

    #[test]
    fn python_level_names_are_levels() {
        for (word, level) in [("WARNING", "warn"), ("CRITICAL", "error"), ("Info", "info"), (" debug ", "debug")] {
            let filter = parse(word).unwrap().to_string();
            assert!(filter.split(',').any(|directive| directive == level), "{word}: {filter}");
        }
    }

    #[test]
    fn libraries_stay_at_warn_when_we_debug() {
        let filter = parse("debug").unwrap().to_string();
        assert!(filter.contains("sqlx=warn") && filter.contains("fred=warn"), "{filter}");
    }

    #[test]
    fn libraries_are_silent_by_default() {
        for level in ["info", "warn", "error"] {
            let filter = parse(level).unwrap().to_string();
            for library in ["fred=off", "sqlx=off", "hyper=off", "kube=off", "tungstenite=off"] {
                assert!(filter.split(',').any(|directive| directive == library), "{level}: {filter}");
            }
        }
    }

    #[test]
    fn a_filter_is_taken_as_it_is() {
        let filter = parse("info,penstock_ingest=debug").unwrap().to_string();
        assert!(!filter.contains("sqlx"), "{filter}");
    }
}
