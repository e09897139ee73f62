//! The list of all settings: for a terminal, for the documentation, for programs.

use std::fmt::Write as _;

use penstock_core::settings::Field;
use serde::Serialize;

use crate::cli::SettingsFormat;

/// A setting as programs read it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed<'a> {
    setting: &'a str,
    environment: String,
    older_environment: &'a [&'a str],
    default: Option<&'a str>,
    minimum: Option<&'a str>,
    maximum: Option<&'a str>,
    allowed: String,
    description: &'a str,
}

/// Writes the settings, each on a line of its own.
pub(super) fn catalog(fields: &[Field], format: SettingsFormat) -> String {
    match format {
        SettingsFormat::Table => table(fields),
        SettingsFormat::Md => markdown(fields),
        SettingsFormat::Json => json(fields),
    }
}

fn table(fields: &[Field]) -> String {
    let head = ["SETTING", "DEFAULT", "ENVIRONMENT", "DESCRIPTION"].map(str::to_owned);
    let rows = fields.iter().map(|field| {
        let names = field.older_names.iter().map(|name| (*name).to_owned()).chain([field.environment_name()]);
        [
            field.path.to_owned(),
            field.default.filter(|default| !default.is_empty()).unwrap_or("-").to_owned(),
            names.collect::<Vec<_>>().join(", "),
            format!("{} Allowed: {}.", field.doc.trim(), field.allowed()),
        ]
    });
    let rows: Vec<[String; 4]> = [head].into_iter().chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let [setting, default, environment] = [0, 1, 2].map(width);
    let mut out = String::new();
    for [path, preset, names, description] in &rows {
        let _ = writeln!(out, "{path:<setting$}  {preset:<default$}  {names:<environment$}  {description}");
    }
    out
}

fn markdown(fields: &[Field]) -> String {
    let mut out = String::from("| setting | environment | default | allowed | description |\n|---|---|---|---|---|\n");
    for field in fields {
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

fn json(fields: &[Field]) -> String {
    let listed = |field| serde_json::to_string(&Listed::from(field)).unwrap_or_default();
    let lines: Vec<String> = fields.iter().map(listed).collect();
    format!("[\n{}\n]\n", lines.join(",\n"))
}

// === impl Listed ===

impl<'a> From<&'a Field> for Listed<'a> {
    fn from(field: &'a Field) -> Self {
        Self {
            setting: field.path,
            environment: field.environment_name(),
            older_environment: field.older_names,
            default: field.default,
            minimum: field.range.map(|(minimum, _)| minimum),
            maximum: field.range.map(|(_, maximum)| maximum),
            allowed: field.allowed(),
            description: field.doc.trim(),
        }
    }
}

#[cfg(test)]
mod tests {
    use penstock_core::settings::Settings;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn each_format_has_every_setting_on_a_line_of_its_own() {
        let fields = Settings::catalog();
        for (format, around) in [(SettingsFormat::Table, 1), (SettingsFormat::Md, 2), (SettingsFormat::Json, 2)] {
            let text = catalog(&fields, format);
            assert_eq!(text.lines().count(), fields.len() + around, "{text}");
            for field in &fields {
                let name = field.environment_name();
                let is_of =
                    |line: &&str| line.contains(field.path) && line.contains(&name) && line.contains(field.doc.trim());
                assert!(text.lines().any(|line| is_of(&line)), "{} in {text}", field.path);
            }
        }
    }

    #[test]
    fn columns_of_the_table_are_aligned() {
        let text = catalog(&Settings::catalog(), SettingsFormat::Table);
        let mut lines = text.lines();
        let at = lines.next().unwrap().find("ENVIRONMENT").unwrap();
        for line in lines {
            let column: String = line.chars().skip(at).collect();
            assert!(column.starts_with(|c: char| c.is_ascii_uppercase()), "{line}");
        }
    }

    #[test]
    fn programs_read_what_there_is_and_what_is_not() {
        let all: Value = serde_json::from_str(&catalog(&Settings::catalog(), SettingsFormat::Json)).unwrap();
        let find = |path: &str| all.as_array().unwrap().iter().find(|field| field["setting"] == path).unwrap().clone();
        assert_eq!(
            find("postgres.port"),
            json!({
                "setting": "postgres.port", "environment": "PENSTOCK_POSTGRES_PORT",
                "olderEnvironment": ["DB_PORT", "POSTGRES_PORT"], "default": "5432", "minimum": "1", "maximum": "65535",
                "allowed": find("postgres.port")["allowed"], "description": "Port, used if no URL is set."
            })
        );
        let token = find("dashboard.readToken");
        assert_eq!(
            (&token["default"], &token["minimum"], &token["olderEnvironment"]),
            (&Value::Null, &Value::Null, &json!([]))
        );
    }
}
