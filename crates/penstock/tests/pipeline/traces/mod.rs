//! Traces across the processes, with a real receiver and without.

pub(crate) mod collector;

use std::collections::{BTreeMap, BTreeSet};

use fred::interfaces::StreamsInterface;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::http::{self, LiveStream};
use crate::rig::{Rig, eventually, relay};
use crate::service::Service;
use crate::tls::Authority;
use collector::{Collector, Found, HEADER};

const EVENTS: u64 = 400;

/// The span of a trace with this name, which there is to be once.
fn only<'a>(spans: &[&'a Found], name: &str) -> &'a Found {
    let found: Vec<_> = spans.iter().filter(|found| found.span.name == name).collect();
    assert_eq!(found.len(), 1, "{name} in {spans:#?}");
    found[0]
}

/// Traces an event in five, to this endpoint.
async fn tracing_rig(endpoint: &str) -> Rig {
    let mut rig = Rig::new().await;
    rig.set("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
    rig.set("OTEL_EXPORTER_OTLP_HEADERS", &format!("{}={}", HEADER.0, HEADER.1));
    rig.set("PENSTOCK_TELEMETRY_SAMPLE_RATIO", "1/5");
    rig.set("PENSTOCK_TELEMETRY_OTLP_METRICS", "true");
    rig.set("PENSTOCK_TELEMETRY_OTLP_METRICS_INTERVAL", "100ms");
    rig.set("LOG_LEVEL", "info,penstock_worker=debug");
    rig
}

/// The numbers of the entries that carry a trace, each with it; their other fields stand where they always do.
async fn traced(rig: &Rig) -> BTreeMap<i64, String> {
    let found: Vec<(String, Vec<(String, String)>)> =
        rig.client.xrange(rig.keys.stream(), "-", "+", None).await.unwrap();
    let entries = found.into_iter().filter_map(|(_, fields)| {
        let names: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names[..3], ["type", "data", "seq"]);
        assert!(names[3..].iter().all(|name| ["traceparent", "root", "sync"].contains(name)), "{names:?}");
        let parent = fields.iter().find(|(name, _)| name == "traceparent")?;
        Some((fields[2].1.parse().unwrap(), parent.1.clone()))
    });
    entries.collect()
}

/// Carries the events through, and checks that each sampled one is one trace from frame to row.
async fn whole_traces(collector: &Collector, mut rig: Rig, protocol: &str) {
    rig.set("OTEL_EXPORTER_OTLP_PROTOCOL", protocol);
    let (relay, recording) = relay(EVENTS).await;
    rig.keep_stream().await;
    let (ingest, worker) = (rig.ingest(&relay), rig.worker("w-1"));
    rig.ingested(recording.last).await;
    rig.settled().await;
    let openmetrics = "accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3";
    let (_, scrape) = http::get_with(ingest.admin().await, "/metrics", openmetrics).await.unwrap();
    eventually("metrics come by themselves", async || {
        collector.metric("penstock-worker", "penstock_worker_entries_acked").is_some()
    })
    .await;
    let log = worker.log();
    ingest.stop().await;
    worker.stop().await;

    // Everything has come: what a process still has at its end, it sends.
    let spans = collector.spans();
    let mut traces = BTreeMap::<Vec<u8>, Vec<&Found>>::new();
    for found in &spans {
        traces.entry(found.span.trace_id.clone()).or_default().push(found);
    }
    let entries = traced(&rig).await;
    assert!((20..200).contains(&entries.len()), "one in five of {EVENTS}: {}", entries.len());
    let mut reached = BTreeSet::new();
    for trace in traces.values().filter(|trace| trace.iter().any(|found| found.span.name == "ingest.receive")) {
        let receive = only(trace, "ingest.receive");
        let seq = receive.number("penstock.seq").unwrap();
        if !entries.contains_key(&seq) {
            // A frame that became a dead letter is told of in any case.
            assert!(receive.span.status.as_ref().is_some_and(|status| status.code == 2), "{receive:#?}");
            continue;
        }
        let (decode, publish) = (only(trace, "ingest.decode"), only(trace, "ingest.publish"));
        let process = only(trace, "worker.process");
        let (transaction, ack) = (only(trace, "worker.transaction"), only(trace, "worker.ack"));
        assert!(receive.span.parent_span_id.is_empty());
        assert!(decode.is_child_of(receive) && publish.is_child_of(receive) && process.is_child_of(publish));
        assert!(transaction.is_child_of(process) && ack.is_child_of(process));
        let services = [receive, publish, process, ack].map(|found| found.service.as_str());
        assert_eq!(services, ["penstock-ingest", "penstock-ingest", "penstock-worker", "penstock-worker"]);
        let times = [
            receive.span.start_time_unix_nano,
            decode.span.start_time_unix_nano,
            publish.span.start_time_unix_nano,
            process.span.start_time_unix_nano,
            transaction.span.start_time_unix_nano,
            ack.span.start_time_unix_nano,
            ack.span.end_time_unix_nano,
            process.span.end_time_unix_nano,
        ];
        assert!(times.is_sorted(), "{times:?}");
        assert_eq!(publish.text("messaging.operation.type").as_deref(), Some("send"));
        assert_eq!(publish.text("messaging.destination.name").as_deref(), Some(rig.keys.stream()));
        assert_eq!(transaction.text("db.system.name").as_deref(), Some("postgresql"));
        let span_id: String = publish.span.span_id.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(entries[&seq].contains(&span_id), "the entry carries the span of its way into the stream");

        let batch = spans.iter().find(|found| process.links_to(found)).unwrap();
        assert_eq!(batch.span.name, "worker.batch");
        assert!(batch.links_to(publish), "{batch:#?}");
        assert!(spans.iter().any(|found| found.span.name == "worker.transaction" && found.is_child_of(batch)));
        reached.insert(seq);
    }
    assert_eq!(reached, entries.keys().copied().collect(), "every sampled entry is one trace from frame to row");

    let ids: BTreeSet<String> = entries.values().map(|parent| parent.split('-').nth(1).unwrap().to_owned()).collect();
    let exemplar = scrape.lines().find_map(|line| line.split_once("# {trace_id=\"")).unwrap().1;
    assert!(ids.contains(&exemplar[..32]), "an exemplar points at a trace: {exemplar}");
    assert!(!log.contains(HEADER.1));
    let is_traced = |line: &Value| line["msg"] == "batch committed" && line["trace_id"].is_string();
    assert!(log.lines().any(|line| is_traced(&serde_json::from_str(line).unwrap())), "{log}");

    let received = collector.metric("penstock-ingest", "penstock_ingest_events").unwrap();
    assert_eq!(received.description, "Events received from the relay");
    let Some(Data::Sum(sum)) = received.data else { panic!("{received:?}") };
    let counts = sum.data_points.iter().map(|point| match point.value {
        Some(number_data_point::Value::AsDouble(count)) => count,
        _ => panic!("{point:?}"),
    });
    assert!(counts.sum::<f64>() >= recording.entries.len() as f64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sampled_event_is_one_trace_from_frame_to_row_across_processes() {
    let collector = Collector::grpc().await;
    whole_traces(&collector, tracing_rig(&collector.endpoint).await, "grpc").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_and_metrics_go_over_http_as_well() {
    let collector = Collector::http().await;
    whole_traces(&collector, tracing_rig(&collector.endpoint).await, "http/protobuf").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_or_is_slow_is_traced_whatever_the_ratio() {
    let collector = Collector::grpc().await;
    let mut rig = tracing_rig(&collector.endpoint).await;
    rig.set("PENSTOCK_TELEMETRY_SAMPLE_RATIO", "0");
    rig.set("PENSTOCK_TELEMETRY_SLOW_SPAN", "1ms");
    rig.keep_stream().await;
    let unreadable = rig.add("commit", "{}", "7").await;
    let worker = rig.worker("w-1");
    worker.says("entry dead-lettered").await;
    let (relay, recording) = relay(EVENTS).await;
    let ingest = rig.ingest(&relay);
    rig.ingested(recording.last).await;
    rig.settled().await;
    ingest.stop().await;
    worker.stop().await;
    assert!(traced(&rig).await.is_empty(), "no event is sampled");
    let spans = collector.spans();
    let batches: Vec<_> = spans.iter().filter(|found| found.span.name == "worker.batch").collect();
    let failed = batches.iter().find(|found| found.text("error.type").as_deref() == Some("dead_letter"));
    assert!(
        failed.is_some_and(|found| found.span.status.as_ref().is_some_and(|status| status.code == 2)),
        "{unreadable}"
    );
    let took = |found: &Found| found.span.end_time_unix_nano - found.span.start_time_unix_nano;
    let transaction = spans.iter().find(|found| found.span.name == "worker.transaction").unwrap();
    assert!(took(transaction) >= 1_000_000, "{transaction:#?}");
    assert!(batches.iter().any(|batch| transaction.is_child_of(batch)), "{batches:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_on_the_trace_of_a_caller_with_a_token_and_a_failed_one_is_told_always() {
    let collector = Collector::grpc().await;
    let mut rig = tracing_rig(&collector.endpoint).await;
    rig.set("PENSTOCK_TELEMETRY_SAMPLE_RATIO", "0");
    rig.set("PENSTOCK_DASHBOARD_ADMIN_TOKEN", "sesame");
    let dashboard = rig.start(&["dashboard"]);
    let address = dashboard.dashboard().await;
    let caller = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let with = |token: &str| format!("{caller}\r\nauthorization: Bearer {token}");
    // Until Redis was read there is nothing to tell, and a request for it fails.
    LiveStream::open(address).await.wait_for("metrics").await;
    let (status, _) = http::get_with(address, "/api/metrics", &with("sesame")).await.unwrap();
    assert_eq!(status, 200);
    // Whoever has no token cannot have everything traced.
    for stranger in [caller.to_owned(), with("guess"), format!("{caller}\r\ncookie: penstock_session=00")] {
        assert_eq!(http::get_with(address, "/api/metrics", &stranger).await.unwrap().0, 200);
    }
    // No ingest runs: the pipeline is not ready.
    let (status, _) = http::get_with(address, "/ready", caller).await.unwrap();
    assert_eq!(status, 503);
    assert_eq!(http::get(address, "/health").await.unwrap().0, 200);
    dashboard.stop().await;
    let spans = collector.spans();
    let found: Vec<_> = spans.iter().map(|found| (found.span.name.as_str(), found.service.as_str())).collect();
    assert_eq!(found, [("GET /api/metrics", "penstock-dashboard"), ("GET /ready", "penstock-dashboard")]);
    let [metrics, ready] = &spans[..] else { panic!("{found:?}") };
    let hex = |id: &[u8]| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(&metrics.span.trace_id), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(hex(&metrics.span.parent_span_id), "b7ad6b7169203331");
    assert_eq!(metrics.span.kind, 2, "of a server");
    assert_eq!(metrics.number("http.response.status_code"), Some(200));
    assert_eq!(ready.text("error.type").as_deref(), Some("503"));
    assert_eq!(ready.text("http.route").as_deref(), Some("/ready"));
    // A trace of its own, which tells the caller's.
    assert_ne!(hex(&ready.span.trace_id), "0af7651916cd43dd8448eb211c80319c");
    assert!(ready.span.parent_span_id.is_empty());
    let links: Vec<_> = ready.span.links.iter().map(|link| hex(&link.trace_id)).collect();
    assert_eq!(links, ["0af7651916cd43dd8448eb211c80319c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_is_reached_over_tls_if_it_is_trusted() {
    let authority = Authority::new();
    let (relay, recording) = relay(50).await;
    for (collector, protocol) in [(Collector::grpc().await, "grpc"), (Collector::http().await, "http/protobuf")] {
        let plain = collector.endpoint.strip_prefix("http://").unwrap().parse().unwrap();
        let mut rig = tracing_rig(&format!("https://{}", authority.before(plain).await)).await;
        rig.set("OTEL_EXPORTER_OTLP_PROTOCOL", protocol);
        rig.set("SSL_CERT_FILE", &authority.certificate());
        let ingest = rig.ingest(&relay);
        rig.ingested(recording.last).await;
        ingest.stop().await;
        assert!(collector.spans().iter().any(|found| found.span.name == "ingest.publish"), "{protocol}");
    }
}

async fn failures(service: &Service) -> f64 {
    service.metric("penstock_telemetry_export_failures_total{signal=\"traces\"}").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_costs_a_count_and_a_line() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let rig = tracing_rig(&format!("http://{nobody}")).await;
    let (relay, recording) = relay(EVENTS).await;
    let (ingest, worker) = (rig.ingest(&relay), rig.worker("w-1"));
    rig.ingested(recording.last).await;
    rig.settled().await;
    for service in [&ingest, &worker] {
        eventually("it counts", async || failures(service).await >= 1.0).await;
        let log = service.log();
        let told = log
            .lines()
            .filter(|line| line.contains(&format!("collector http://{nobody} does not answer: connection refused")));
        assert_eq!(told.count(), 1, "{log}");
    }
    ingest.stop().await;
    worker.stop().await;
    rig.assert_result_is(&recording.entries, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_never_answers_does_not_hold_up_the_end() {
    // The system takes the connection; nobody ever reads it.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut rig = tracing_rig(&format!("http://{}", silent.local_addr().unwrap())).await;
    rig.set("PENSTOCK_TELEMETRY_OTLP_TIMEOUT", "1m");
    rig.set("PENSTOCK_TELEMETRY_FLUSH_TIMEOUT", "300ms");
    let (relay, recording) = relay(EVENTS).await;
    let ingest = rig.ingest(&relay);
    rig.ingested(recording.last).await;
    ingest.terminate();
    ingest.says("were not sent in time").await;
    // Ends within the ten seconds that any service has.
    ingest.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_ours_are_checked_before_anything_starts() {
    let mut rig = Rig::without_tables().await;
    rig.set("PENSTOCK_TELEMETRY_OTLP_ENDPOINT", "collector:4317");
    rig.set("PENSTOCK_TELEMETRY_OTLP_HEADERS", "geheim");
    rig.set("PENSTOCK_TELEMETRY_SAMPLE_RATIO", "2");
    let refused = rig.run(&["worker"]).await;
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(64), "{said}");
    for part in ["telemetry.otlpEndpoint", "telemetry.otlpHeaders", "telemetry.sampleRatio", "http://collector:4317"] {
        assert!(said.contains(part), "{part} is not in: {said}");
    }
    assert!(!said.contains("geheim"), "{said}");
}

/// What is set for all processes of a cluster is meant for other SDKs too.
const FOREIGN: [(&str, &str); 7] = [
    ("OTEL_RESOURCE_ATTRIBUTES", "team=a,flag"),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "geheim"),
    ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
    ("OTEL_TRACES_SAMPLER_ARG", "endpoint=http://agent:5778"),
    ("OTEL_METRICS_EXPORTER", "console"),
];

#[tokio::test(flavor = "multi_thread")]
async fn variables_of_opentelemetry_that_cannot_be_used_are_told_and_stop_nothing() {
    let mut rig = Rig::new().await;
    for (name, value) in FOREIGN {
        rig.set(name, value);
    }
    let (relay, recording) = relay(50).await;
    let (ingest, worker) = (rig.ingest(&relay), rig.worker("w-1"));
    rig.ingested(recording.last).await;
    rig.settled().await;
    for service in [&ingest, &worker] {
        let log = service.log();
        let lines = log.lines().map(|line| serde_json::from_str(line).expect(line));
        let told: BTreeSet<String> = lines
            .filter(|line: &Value| line["msg"] == "a variable of OpenTelemetry cannot be used as it is")
            .map(|line| line["variable"].as_str().unwrap().to_owned())
            .collect();
        // The argument goes with its sampler.
        let expected = FOREIGN.map(|(name, _)| name).into_iter().filter(|name| *name != "OTEL_TRACES_SAMPLER_ARG");
        assert_eq!(told, expected.map(str::to_owned).collect(), "{log}");
        assert!(!log.contains("geheim"), "{log}");
    }
    ingest.stop().await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_goes_to_its_own_collector_with_its_own_headers_under_the_name_of_the_attribute() {
    let (all, traces) = (Collector::http().await, Collector::http().await);
    let mut rig = tracing_rig(&all.endpoint).await;
    rig.set("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json");
    // Whoever asks for no key refuses: the general one is wrong, and that of the traces right.
    rig.set("OTEL_EXPORTER_OTLP_HEADERS", "x-key=wrong");
    rig.set("OTEL_EXPORTER_OTLP_TRACES_HEADERS", &format!("{}={}", HEADER.0, HEADER.1));
    rig.set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &format!("{}/v1/traces", traces.endpoint));
    rig.set("OTEL_RESOURCE_ATTRIBUTES", "app.kubernetes.io/part-of=a b,service.name=by-attribute");
    rig.set("PENSTOCK_TELEMETRY_OTLP_METRICS", "false");
    let (relay, recording) = relay(50).await;
    let ingest = rig.ingest(&relay);
    rig.ingested(recording.last).await;
    let log = ingest.log();
    ingest.stop().await;
    let spans = traces.spans();
    assert!(spans.iter().any(|found| found.span.name == "ingest.publish"), "{spans:#?}");
    assert!(spans.iter().all(|found| found.service == "by-attribute"), "{spans:#?}");
    assert!(all.spans().is_empty());
    assert!(!log.contains(HEADER.1) && !log.contains("wrong"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_cannot_be_used_is_told_and_stops_nothing() {
    let folder = penstock_local::testing::TempFolder::new().unwrap();
    let nothing = folder.path().join("no-certificates.pem");
    std::fs::write(&nothing, "").unwrap();
    for protocol in ["grpc", "http/protobuf"] {
        let mut rig = tracing_rig("https://127.0.0.1:1").await;
        rig.set("OTEL_EXPORTER_OTLP_PROTOCOL", protocol);
        rig.set("SSL_CERT_FILE", nothing.to_str().unwrap());
        rig.set("SSL_CERT_DIR", folder.path().to_str().unwrap());
        let (relay, recording) = relay(50).await;
        let ingest = rig.ingest(&relay);
        rig.ingested(recording.last).await;
        let log = ingest.log();
        let told = ["traces or metrics cannot be exported", "does not answer"];
        assert!(told.iter().any(|told| log.contains(told)), "{protocol}: {log}");
        ingest.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_turns_traces_off_gets_none() {
    for (name, value) in
        [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none"), ("OTEL_TRACES_SAMPLER", "always_off")]
    {
        let collector = Collector::grpc().await;
        let mut rig = Rig::without_tables().await;
        rig.set("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint);
        rig.set("OTEL_EXPORTER_OTLP_HEADERS", &format!("{}={}", HEADER.0, HEADER.1));
        rig.set(name, value);
        let dashboard = rig.start(&["dashboard"]);
        // Failed requests are traced at any ratio.
        assert_eq!(http::get(dashboard.dashboard().await, "/ready").await.unwrap().0, 503);
        dashboard.stop().await;
        assert_eq!(collector.spans().len(), 0, "{name}={value}");
    }
}
