//! The tables: whose they are, what is missing, and what the AppView's schema tool would stumble over.

use std::collections::BTreeSet;

use crate::appview::{OTHERS, TABLES};
use crate::finding::Finding;
use crate::seen::PostgresSeen;
use crate::text;

/// Columns that an installation of 0.1 added to the AppView's tables.
const OLD_COLUMNS: [&str; 4] = ["entry_id", "tracking_id", "dedupe_key", "commit_rev"];

/// What stands in `public`.
#[derive(Default)]
struct Public<'a> {
    /// Tables and columns that 0.1 made there.
    old: Vec<String>,
    /// Tables that neither side knows.
    tables: Vec<&'a str>,
    /// Columns that neither side knows.
    columns: Vec<String>,
    /// Tables that both sides write.
    appview: usize,
}

/// Judges the tables.
pub(super) fn judge(postgres: &PostgresSeen, findings: &mut Vec<Finding>) {
    let public = sort(postgres);
    findings.push(schema(postgres, &public));
    strangers(postgres, &public, findings);
    let list = |names: &[String]| text::names(names.iter().map(String::as_str));
    if !postgres.missing_keys.is_empty() {
        findings.push(Finding::fail(
            "schema.keys",
            format!("no unique index on {}: ON CONFLICT statements will fail", list(&postgres.missing_keys)),
            "let the AppView's schema tool create it, or remove duplicates and CREATE UNIQUE INDEX CONCURRENTLY",
        ));
    }
    if !postgres.invalid_indexes.is_empty() {
        findings.push(Finding::warn(
            "schema.indexes",
            format!("invalid indexes: {}", list(&postgres.invalid_indexes)),
            "REINDEX INDEX CONCURRENTLY or drop them",
        ));
    }
    if !postgres.missing_rights.is_empty() {
        findings.push(Finding::fail(
            "schema.rights",
            format!("role {} lacks {}", text::name(&postgres.facts.role), list(&postgres.missing_rights)),
            "GRANT these privileges to the workers' role",
        ));
    }
    if !postgres.foreign_owned.is_empty() {
        findings.push(Finding::warn(
            "schema.owner",
            format!("migrate has to alter {}, which this role does not own", list(&postgres.foreign_owned)),
            "run penstock migrate as the owner",
        ));
    }
}

fn schema(postgres: &PostgresSeen, public: &Public<'_>) -> Finding {
    const CHECK: &str = "schema";
    let migrate = "penstock migrate";
    let old = text::names(public.old.iter().map(String::as_str));
    if !postgres.dirty.is_empty() {
        let found = format!("migration {:?} did not finish", postgres.dirty);
        return Finding::fail(CHECK, found, format!("run {migrate} again and check its output"));
    }
    if !public.old.is_empty() {
        let found =
            format!("objects of Penstock 0.1 are in public ({old}), where the AppView's schema tool trips over them");
        return Finding::warn(
            CHECK,
            found,
            format!("{migrate} moves them to schema penstock; it is safe to interrupt"),
        );
    }
    if postgres.ours.is_empty() && !postgres.facts.role.is_empty() && !postgres.facts.may_create_schema {
        return Finding::warn(
            CHECK,
            format!("schema penstock does not exist, and role {} may not create it", text::name(&postgres.facts.role)),
            "GRANT CREATE ON DATABASE, or run penstock migrate with another role",
        );
    }
    if postgres.ours.is_empty() {
        return match public.appview {
            0 => Finding::note(CHECK, "the database is empty; penstock migrate creates all tables"),
            _ => {
                let found = format!("{} AppView tables, but no schema penstock", public.appview);
                Finding::note(CHECK, found).advised(format!("run {migrate} before the first Penstock worker starts"))
            }
        };
    }
    match postgres.lacks.as_deref() {
        None => Finding::note(CHECK, "schema penstock exists; could not check whether it is complete"),
        Some([]) => Finding::ok(CHECK, "all tables and columns are in place"),
        Some(lacks) => {
            let found = format!("missing: {}", text::names(lacks.iter().map(String::as_str)));
            Finding::fail(CHECK, found, format!("run {migrate}; workers wait until then"))
        }
    }
}

/// What the AppView's tool does not know: where it runs, it asks about each, and applies nothing.
fn strangers(postgres: &PostgresSeen, public: &Public<'_>, findings: &mut Vec<Finding>) {
    const CHECK: &str = "schema.public";
    if public.tables.is_empty() && public.columns.is_empty() {
        let found = if postgres.public.is_empty() {
            "public has no tables"
        } else {
            "public has only known AppView tables and columns"
        };
        findings.push(Finding::ok(CHECK, found));
        return;
    }
    let strangers = text::names(public.tables.iter().copied().chain(public.columns.iter().map(String::as_str)));
    let found = format!("unknown tables or columns in public: {strangers}");
    findings.push(if postgres.has_appview() {
        Finding::warn(
            CHECK,
            found,
            "the AppView's schema tool would prompt about them and silently apply nothing (with --force: drop them); move them to another schema, \
             unless they belong to a newer AppView",
        )
    } else {
        Finding::note(CHECK, found).advised("the schema tool of an AppView installed here would trip over them")
    });
}

fn sort(postgres: &PostgresSeen) -> Public<'_> {
    let mut public = Public::default();
    for (name, columns) in &postgres.public {
        let name = name.as_str();
        if name.starts_with("penstock_") {
            public.old.push(name.to_owned());
        } else if let Some(known) = TABLES.iter().find(|table| table.name == name) {
            public.appview += 1;
            let known: BTreeSet<&str> = known.columns.iter().copied().collect();
            for column in columns.iter().map(String::as_str).filter(|column| !known.contains(column)) {
                let full = format!("{name}.{column}");
                if OLD_COLUMNS.contains(&column) { public.old.push(full) } else { public.columns.push(full) }
            }
        } else if name == "messages" && columns.iter().any(|column| OLD_COLUMNS.contains(&column.as_str())) {
            public.old.push(format!("{name}.dedupe_key"));
        } else if !OTHERS.contains(&name) {
            public.tables.push(name);
        }
    }
    public
}

#[cfg(test)]
mod tests {
    use super::super::tests::of;
    use super::*;
    use crate::finding::Level;

    fn findings(public: &[(&str, &[&str])], ours: &[&str], lacks: Option<&[&str]>) -> Vec<Finding> {
        let owned = |name: &&str| (*name).to_owned();
        let postgres = PostgresSeen {
            public: public
                .iter()
                .map(|(name, columns)| ((*name).to_owned(), columns.iter().map(owned).collect()))
                .collect(),
            ours: ours.iter().map(owned).collect(),
            lacks: lacks.map(|lacks| lacks.iter().map(owned).collect()),
            ..PostgresSeen::default()
        };
        let mut findings = Vec::new();
        judge(&postgres, &mut findings);
        findings
    }

    #[test]
    fn the_state_of_the_schema_is_named() {
        type Case<'a> = (&'a [(&'a str, &'a [&'a str])], &'a [&'a str], Option<&'a [&'a str]>, Level, &'a str);
        let posts: (&str, &[&str]) = ("posts", &["uri", "commit_rev"]);
        let cases: &[Case<'_>] = &[
            (&[], &[], None, Level::Note, "empty"),
            (&[posts], &[], Some(&["table penstock.repos"]), Level::Note, "no schema penstock"),
            (&[posts], &["repos"], Some(&[]), Level::Ok, "all tables and columns"),
            (&[posts], &["repos"], None, Level::Note, "could not check"),
            (&[posts], &["repos"], Some(&["table penstock.stamps"]), Level::Fail, "penstock.stamps"),
            (&[posts, ("penstock_repos", &["did"])], &[], Some(&[]), Level::Warn, "0.1"),
            (&[("posts", &["uri", "entry_id"])], &["repos"], Some(&[]), Level::Warn, "posts.entry_id"),
            (&[("lists", &["uri", "commit_rev"])], &["repos"], Some(&[]), Level::Warn, "lists.commit_rev"),
        ];
        for (public, ours, lacks, wanted, said) in cases {
            let findings = findings(public, ours, *lacks);
            let found = of(&findings, "schema");
            assert!(found.level == *wanted && found.found.contains(said), "{public:?} {ours:?}: {found:?}");
        }
    }

    #[test]
    fn strangers_in_public_are_named_and_worse_where_the_tool_runs() {
        let level = |public: &[(&str, &[&str])]| of(&findings(public, &[], None), "schema.public").clone();
        let sessions: (&str, &[&str]) = ("sessions", &["id", "anything"]);
        assert_eq!(level(&[sessions, ("posts", &["uri"])]).level, Level::Ok);
        let table = level(&[sessions, ("audit_log", &["id"])]);
        assert!(table.level == Level::Warn && table.found.contains("audit_log"), "{table:?}");
        let column = level(&[sessions, ("posts", &["uri", "mood"])]);
        assert!(column.level == Level::Warn && column.found.contains("posts.mood"), "{column:?}");
        assert_eq!(level(&[("audit_log", &["id"])]).level, Level::Note);
        assert_eq!(level(&[sessions, ("messages", &["id", "content"])]).level, Level::Warn);
    }

    #[test]
    fn what_statements_need_is_a_failure_when_missing() {
        let mut postgres = PostgresSeen {
            missing_keys: vec!["likes (user_did, post_uri)".into()],
            missing_rights: vec!["INSERT on public.posts".into()],
            invalid_indexes: vec!["idx".into()],
            foreign_owned: vec!["public.posts (other)".into()],
            ..PostgresSeen::default()
        };
        let mut findings = Vec::new();
        judge(&postgres, &mut findings);
        assert_eq!(of(&findings, "schema.keys").level, Level::Fail);
        assert_eq!(of(&findings, "schema.rights").level, Level::Fail);
        assert_eq!(of(&findings, "schema.indexes").level, Level::Warn);
        assert_eq!(of(&findings, "schema.owner").level, Level::Warn);
        postgres.dirty = vec![3];
        judge(&postgres, &mut findings);
        assert_eq!(findings.iter().rfind(|finding| finding.check == "schema").map(|f| f.level), Some(Level::Fail));
    }
}
