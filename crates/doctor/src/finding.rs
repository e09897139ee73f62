//! Findings: one line per check, with advice where something is wrong.

use std::fmt::Write as _;

use serde::Serialize;

use crate::text;

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// For information.
    Note,
    /// Works now, but will cause trouble.
    Warn,
    /// Loses data or blocks something, now or in the next step.
    Fail,
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The severity.
    pub level: Level,
    /// Its name, stable over versions, such as `stream.writers`.
    pub check: String,
    /// What was found.
    pub found: String,
    /// What to do.
    #[serde(rename = "do", skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// All findings of one run, in reading order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The findings.
    pub findings: Vec<Finding>,
}

// === impl Level ===

impl Level {
    const ALL: [Self; 4] = [Self::Fail, Self::Warn, Self::Note, Self::Ok];

    /// The word at the beginning of a line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

// === impl Finding ===

impl Finding {
    /// Makes a finding that asks for nothing.
    #[must_use]
    pub fn new(level: Level, check: impl Into<String>, found: impl Into<String>) -> Self {
        Self { level, check: check.into(), found: found.into(), advice: None }
    }

    pub(crate) fn ok(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(Level::Ok, check, found)
    }

    pub(crate) fn note(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(Level::Note, check, found)
    }

    pub(crate) fn warn(check: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Level::Warn, check, found).advised(advice)
    }

    pub(crate) fn fail(check: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Level::Fail, check, found).advised(advice)
    }

    pub(crate) fn advised(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    fn line(&self) -> String {
        let advice = self.advice.as_ref().map(|advice| format!("; {advice}")).unwrap_or_default();
        text::one_line(&format!("{:<4} {}: {}{advice}", self.level.as_str(), self.check, self.found))
    }
}

// === impl Report ===

impl Report {
    /// Returns the severity of the worst finding.
    #[must_use]
    pub fn worst(&self) -> Level {
        self.findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
    }

    /// Returns the exit code: 0 for nothing wrong, 1 for warnings, 2 for failures.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.worst() {
            Level::Ok | Level::Note => 0,
            Level::Warn => 1,
            Level::Fail => 2,
        }
    }

    /// Writes a line for each finding, and a last one that counts them.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        for finding in &self.findings {
            let _ = writeln!(out, "{}", finding.line());
        }
        let _ = writeln!(out, "{}", self.counted());
        out
    }

    /// Writes the findings as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        let findings: Vec<_> = self.findings.iter().map(Finding::escaped).collect();
        serde_json::json!({ "worst": self.worst(), "findings": findings }).to_string()
    }

    fn counted(&self) -> String {
        let count = |level| self.findings.iter().filter(|finding| finding.level == level).count();
        Level::ALL.map(|level| format!("{} {}", count(level), level.as_str())).join(", ")
    }
}

impl Finding {
    /// The same with nothing in it that a terminal or a log would take for a command.
    fn escaped(&self) -> Self {
        Self {
            level: self.level,
            check: text::one_line(&self.check),
            found: text::one_line(&self.found),
            advice: self.advice.as_deref().map(text::one_line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(levels: &[Level]) -> Report {
        Report { findings: levels.iter().map(|level| Finding::new(*level, "a.b", "c")).collect() }
    }

    #[test]
    fn the_exit_code_is_that_of_the_worst() {
        assert_eq!(report(&[]).exit_code(), 0);
        assert_eq!(report(&[Level::Ok, Level::Note]).exit_code(), 0);
        assert_eq!(report(&[Level::Warn, Level::Ok]).exit_code(), 1);
        assert_eq!(report(&[Level::Note, Level::Fail, Level::Warn]).exit_code(), 2);
    }

    #[test]
    fn each_finding_is_one_line_whatever_it_holds() {
        let finding = Finding::warn("groups.a\nb", "x\u{1b}[2Jy\r\n", "do\tz");
        let report = Report { findings: vec![finding] };
        assert_eq!(report.to_text(), "warn groups.a\\nb: x\\u{1b}[2Jy\\r\\n; do\\tz\n0 fail, 1 warn, 0 note, 0 ok\n");
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap_or_default();
        assert_eq!(json["findings"][0]["check"], "groups.a\\nb");
        assert_eq!((&json["worst"], &json["findings"][0]["do"]), (&"warn".into(), &"do\\tz".into()));
    }
}
