//! The PrometheusRule: the alerts that a person on call wants, each with what to do.

use kube::core::ApiResource;
use penstock_core::settings::Verification;
use serde_json::{Value, json};

use super::child::{Child, foreign_kind};
use super::labels;
use super::labels::Texts;
use crate::plan::{Part, Plan};

/// One alert.
struct Alert {
    name: &'static str,
    /// PromQL.
    when: String,
    /// For how long it holds before anybody is told.
    lasting: &'static str,
    severity: &'static str,
    summary: String,
    action: &'static str,
}

const CRITICAL: &str = "critical";
const WARNING: &str = "warning";

/// Builds the alerts. A pipeline that is suspended has none: that nothing runs is what was asked for.
pub(super) fn rule(plan: &Plan) -> Option<Child> {
    let monitor = &plan.spec.telemetry.prometheus_rule;
    if !monitor.enabled || !plan.api.prometheus_rule || plan.spec.suspend {
        return None;
    }
    let mut alerts = Vec::new();
    if plan.part(Part::Ingest).is_some() {
        alerts.extend(of_ingest(plan));
    }
    if plan.part(Part::Worker).is_some() {
        alerts.extend(of_workers(plan));
    }
    if plan.part(Part::Heal).is_some() {
        alerts.push(healing_stuck(plan));
    }
    let spec = json!({
        "groups": [{
            "name": format!("penstock-{}-{}", plan.namespace, plan.name),
            "interval": monitor.interval,
            "rules": alerts.iter().map(|alert| rendered(alert, plan)).collect::<Vec<_>>(),
        }],
    });
    let meta = labels::meta_with(plan, plan.name.clone(), "alerts", &monitor.labels, &Texts::new());
    Some(Child::foreign(kind(), meta, &spec))
}

pub(super) fn kind() -> ApiResource {
    foreign_kind("monitoring.coreos.com", "v1", "PrometheusRule", "prometheusrules")
}

fn rendered(alert: &Alert, plan: &Plan) -> Value {
    json!({
        "alert": alert.name,
        "expr": alert.when,
        "for": alert.lasting,
        "labels": {"severity": alert.severity, "namespace": plan.namespace, "pipeline": plan.name},
        "annotations": {
            "summary": alert.summary,
            "description": alert.action,
            "runbook_url": format!("{}/{}.md", plan.runbooks_url, alert.name),
        },
    })
}

fn of_ingest(plan: &Plan) -> Vec<Alert> {
    let at = pods(plan, Part::Ingest);
    let name = &plan.name;
    let mut alerts = vec![
        Alert {
            name: "PenstockIngestDisconnected",
            // While the stream is full, ingest is away from the relay on purpose.
            when: format!(
                "(max(penstock_ingest_connected{at}) or vector(0)) + (max(penstock_ingest_paused{at}) or vector(0)) < 1"
            ),
            lasting: "3m",
            severity: CRITICAL,
            summary: format!("{name}: no ingest reads a relay."),
            action: "Nothing is lost while the relay keeps its window. Look at the pods and the log of ingest: does it run, does it \
                     hold the lease, do the relay and Redis answer? A second address in relay.urls stands by.",
        },
        Alert {
            name: "PenstockIngestLagging",
            // On a quiet relay the newest event grows old by itself, so events must come. Half a second a second is catching up.
            when: format!(
                "max(penstock_ingest_lag_seconds{at} and penstock_ingest_lease_held{at} == 1) > 300 and \
                 max(deriv(penstock_ingest_lag_seconds{at}[10m]) and penstock_ingest_lease_held{at} == 1) > -0.5 and \
                 sum(rate(penstock_ingest_events_total{at}[5m])) > 0"
            ),
            lasting: "10m",
            severity: WARNING,
            summary: format!("{name}: the newest event in the stream is {{{{ $value | humanizeDuration }}}} old."),
            action: "It does not fall by itself: ingest lacks CPU or Redis is slow. See \
                     penstock_ingest_publish_duration_seconds and ingest.pod.resources.",
        },
        Alert {
            name: "PenstockStreamFull",
            when: format!("max(penstock_ingest_paused{at}) > 0"),
            lasting: "10m",
            severity: CRITICAL,
            summary: format!("{name}: the stream is full, ingest does not read."),
            action: "Workers or another consumer group do not keep up, and past the relay's window events are lost. See \
                     penstock_worker_group_lag; XINFO GROUPS shows who holds the stream. Raise workers.autoscaling.maxReplicas, or \
                     redis.maxStreamLength where Redis has memory.",
        },
        Alert {
            name: "PenstockDataLoss",
            when: counted("sum", "penstock_ingest_data_loss_total", &at),
            lasting: "0m",
            severity: CRITICAL,
            summary: format!("{name}: the relay no longer had events that were never read."),
            action: "The log line of ingest \"events are lost\" names the range. Backfill the repos concerned, and find out why ingest \
                     was away for longer than the relay's window.",
        },
        Alert {
            name: "PenstockGap",
            when: counted("sum", "penstock_ingest_gaps_total", &at),
            lasting: "0m",
            severity: WARNING,
            summary: format!("{name}: numbers are missing where reading resumed."),
            action: "Often they were never used. Only together with PenstockDataLoss are events missing.",
        },
        dead_letters(name, &at),
    ];
    if plan.settings.verify.mode != Verification::Off {
        alerts.extend(of_verification(name, &at));
    }
    if plan.settings.identity.enabled {
        alerts.push(unresolved(name, &at));
    }
    alerts
}

fn of_verification(name: &str, at: &str) -> [Alert; 2] {
    let failed = at.replace('}', ",result=~\"failed|refused\"}");
    [
        Alert {
            name: "PenstockVerificationFailing",
            // A few an hour are what single hosts do.
            when: format!("sum by (reason) (increase(penstock_ingest_verified_total{failed}[1h])) > 10"),
            lasting: "0m",
            severity: WARNING,
            summary: format!(
                "{name}: {{{{ $value | humanize }}}} commits failed verification within an hour ({{{{ $labels.reason }}}})."
            ),
            action: "The condition Verified says how many and whose the last one was. Of one host: it is broken. Of all: the relay changes \
                     commits, or identity.plcUrl is not the directory of this network; read another relay.",
        },
        Alert {
            name: "PenstockReposDesynchronized",
            // One commit that was missed marks one repo: this many were missed together.
            when: format!("sum(increase(penstock_ingest_desynchronized_total{at}[1h])) > 100"),
            lasting: "5m",
            severity: WARNING,
            summary: format!("{name}: {{{{ $value | humanize }}}} repos were marked desynchronized within an hour."),
            action: "Commits of them were never received. penstock.repos says which (sync, sync_at). After a gap, backfill them; without one \
                     the relay drops commits: read another one.",
        },
    ]
}

fn unresolved(name: &str, at: &str) -> Alert {
    let documents = at.replace('}', ",kind=\"document\"}");
    let away = at.replace('}', ",kind=\"document\",result=~\"unreachable|busy\"}");
    let passed = at.replace('}', ",result=\"unresolved\"}");
    let sum = |metric: &str, of: &str| format!("sum(increase({metric}{of}[15m]))");
    let (requests, commits) = ("penstock_identity_requests_total", "penstock_ingest_verified_total");
    let share = |part: &str, whole: &str, most: &str| format!("({part} / {whole} > {most} and {part} > 20)");
    Alert {
        name: "PenstockIdentityUnresolved",
        // Single hosts are always away: more than half of the requests, or one commit of a hundred, is the directory or the network.
        when: format!(
            "{} or {}",
            share(&sum(requests, &away), &sum(requests, &documents), "0.5"),
            share(&sum(commits, &passed), &sum(commits, at), "0.01")
        ),
        lasting: "5m",
        severity: WARNING,
        summary: format!(
            "{name}: {{{{ $value | humanizePercentage }}}} of what is asked of identities stays without an answer."
        ),
        action: "The directory or the way to it is away: ingest needs a way out over HTTPS to identity.plcUrl. Commits of accounts whose key \
                 is not known pass unchecked or wait, as verify.unresolved says.",
    }
}

fn of_workers(plan: &Plan) -> Vec<Alert> {
    let at = pods(plan, Part::Worker);
    let name = &plan.name;
    let lag = format!("max(penstock_worker_group_lag{at})");
    // A tenth of the stream is far from full, and far from what a healthy fleet leaves.
    let much = plan.settings.redis.max_stream_len / 10;
    let refused = at.replace('}', ",reason!~\"deadlock|serialization failure|race\"}");
    let ingest = pods(plan, Part::Ingest);
    vec![
        Alert {
            name: "PenstockWorkersAbsent",
            // Scaled to zero the stream is next to empty.
            when: format!(
                "max(penstock_ingest_stream_length{ingest}) > 1000 unless on () group(penstock_worker_entries_in_flight{at})"
            ),
            lasting: "5m",
            severity: CRITICAL,
            summary: format!("{name}: no worker answers, and {{{{ $value | humanize }}}} entries wait."),
            action: "Nothing is lost: the stream holds them until it is full, and then the relay does. See the pods of the workers and \
                     the condition WorkersAvailable.",
        },
        Alert {
            name: "PenstockBacklogGrowing",
            when: format!("{lag} > {much} and max(deriv(penstock_worker_group_lag{at}[15m])) > 0"),
            lasting: "15m",
            severity: WARNING,
            summary: format!("{name}: {{{{ $value | humanize }}}} entries wait, and they become more."),
            action: "kubectl describe firehosepipeline says why there are as many workers as there are. At maxReplicas: raise it. \
                     Where more workers do not write more, PostgreSQL is the limit: see \
                     penstock_worker_transaction_duration_seconds.",
        },
        Alert {
            name: "PenstockStalled",
            when: format!(
                "({lag} > 0 or max(penstock_worker_group_pending{at}) > 0) and \
                 sum(rate(penstock_worker_entries_acked_total{at}[5m])) == 0"
            ),
            lasting: "5m",
            severity: CRITICAL,
            summary: format!("{name}: entries wait, and no worker acknowledges any."),
            action: "Look at the workers' log: PostgreSQL refuses, or a table is missing, or a lock is held. Nothing is lost: they try \
                     again for as long as it takes.",
        },
        Alert {
            name: "PenstockDatabaseRefusing",
            // Transactions that only met another one are tried again at once, and are nothing.
            when: format!("sum by (reason) (increase(penstock_worker_retries_total{refused}[10m])) > 10"),
            lasting: "5m",
            severity: WARNING,
            summary: format!("{name}: transactions are tried again ({{{{ $labels.reason }}}})."),
            action: "The workers' log names what PostgreSQL said: a full disk, a read-only server or too many connections want mending.",
        },
        Alert {
            name: "PenstockEntriesDeleted",
            when: counted("sum", "penstock_worker_entries_deleted_total", &at),
            lasting: "0m",
            severity: CRITICAL,
            summary: format!("{name}: entries were gone from the stream before they were written."),
            action: "Something else trims or deletes from the stream: find it (a producer with MAXLEN, an XDEL). Backfill the repos \
                     concerned.",
        },
        dead_letters(name, &at),
    ]
}

fn healing_stuck(plan: &Plan) -> Alert {
    let at = pods(plan, Part::Heal);
    let finished = at.replace('}', ",result=~\"healed|given_up\"}");
    Alert {
        name: "PenstockHealingStuck",
        // What waits for its host is not due, and so a host that is away for days is no reason.
        when: format!(
            "max(penstock_heal_due{at}) > 0 unless sum(increase(penstock_heal_repairs_total{finished}[30m])) > 0"
        ),
        lasting: "30m",
        severity: WARNING,
        summary: format!("{}: the healers finish no repo, and {{{{ $value | humanize }}}} could be read.", plan.name),
        action: "Rows of those repos stay as they are, and backfills do not go on. The healers' log says why: no way out over HTTPS, a \
                 database that refuses, a full heal.storage.",
    }
}

fn dead_letters(pipeline: &str, at: &str) -> Alert {
    Alert {
        name: "PenstockDeadLetters",
        when: counted("sum by (source)", "penstock_dead_letters_total", at),
        lasting: "0m",
        severity: WARNING,
        summary: format!("{pipeline}: {{{{ $value | humanize }}}} entries were set aside ({{{{ $labels.source }}}})."),
        action: "The dashboard lists them with the error of each; XRANGE firehose:dead-letters - + shows the same. Replay them once the \
                 cause is mended, or purge them.",
    }
}

/// Asks whether a counter moved within the hour. One may be born at 1, because its process counted before the first scrape, and
/// `increase` does not see that: so a series that was not there an hour ago counts with all it has.
fn counted(sum: &str, counter: &str, at: &str) -> String {
    format!(
        "{sum} (increase({counter}{at}[1h])) > 0 or \
         {sum} ({counter}{at} unless last_over_time({counter}{at}[1h] offset 1h)) > 0"
    )
}

/// Selects a part's pods by their names, which every way of scraping in Kubernetes keeps.
fn pods(plan: &Plan, part: Part) -> String {
    let Plan { name, namespace, .. } = plan;
    format!("{{namespace=\"{namespace}\",pod=~\"{name}-{}-[a-z0-9]+(-[a-z0-9]+)?\"}}", part.component())
}
