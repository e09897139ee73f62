//! The settings file, and whether each part would start with it: what a service would refuse is reported before a pod is made.

use std::collections::BTreeMap;

use penstock_core::settings::{Layers, Origin, SettingError, Settings};
use serde_json::{Map, Value, json};

use super::check::{REPOS_FOLDER, SETTINGS_FOLDER};
use super::error::{BadField, PlanError};
use super::part::Part;
use super::secrets::{Secrets, of_variable};
use crate::crd::{Filter, FirehosePipelineSpec, LogFormat, Memory, OtlpProtocol, Start, Telemetry};
use crate::hash::hash;

/// What carries an address, headers or a certificate out of a Secret: variable and field.
const ADDRESSES: [(&str, &str); 7] = [
    ("REDIS_URL", "redis.urlSecret"),
    ("DATABASE_URL", "postgres.urlSecret"),
    ("DATABASE_DIRECT_URL", "postgres.directUrlSecret"),
    ("PENSTOCK_TELEMETRY_OTLP_HEADERS", "telemetry.otlp.headersSecret"),
    ("PENSTOCK_REDIS_TLS_CA", "redis.tls.caSecret"),
    ("PENSTOCK_REDIS_TLS_CERT", "redis.tls.certSecret"),
    ("PENSTOCK_REDIS_TLS_KEY", "redis.tls.keySecret"),
];

/// Settings that are called otherwise in the resource.
const FIELDS: [(&str, &str); 5] = [
    ("heal.spill", "heal.memory"),
    ("redis.maxStreamLen", "redis.maxStreamLength"),
    ("worker.", "workers."),
    ("telemetry.otlpEndpoint", "telemetry.otlp.endpoint"),
    ("telemetry.sampleRatio", "telemetry.otlp.sampleOneIn"),
];

/// The lists of the filter: settings, and files beside that of the settings.
pub(crate) const FILTER_FILES: [(&str, &str); 3] =
    [("collections", "filter-collections"), ("repos", "filter-repos"), ("excludeRepos", "filter-exclude-repos")];

/// The settings file of a pipeline.
pub(super) struct File {
    /// YAML.
    pub(super) text: String,
    sections: Map<String, Value>,
}

// === impl File ===

impl File {
    /// Writes down what the resource says, in the names of the settings.
    pub(super) fn new(spec: &FirehosePipelineSpec, namespace: &str, name: &str) -> Result<Self, PlanError> {
        let FirehosePipelineSpec {
            relay,
            redis,
            postgres,
            ingest,
            workers,
            verify,
            filter,
            identity,
            heal,
            dashboard,
            telemetry,
            ..
        } = spec;
        let key_prefix = Some(&redis.key_prefix).filter(|prefix| !prefix.is_empty());
        let base_path = Some(&dashboard.base_path).filter(|path| *path != "/");
        let start = match relay.start {
            Start::Live => "live",
            Start::Oldest => "oldest",
        };
        let sections = [
            ("relay", json!({"urls": relay.urls, "start": start, "dataTimeout": relay.data_timeout})),
            (
                "redis",
                json!({
                    "url": redis.url, "keyPrefix": key_prefix, "streamKey": redis.stream_key,
                    "cursorKey": redis.cursor_key, "group": redis.group, "maxStreamLen": redis.max_stream_length,
                }),
            ),
            (
                "postgres",
                json!({
                    "url": postgres.url, "poolSize": postgres.pool_size, "passwordFile": postgres.password_file,
                    "passwordCommand": postgres.password_command, "schema": postgres.schema,
                }),
            ),
            (
                "ingest",
                json!({
                    "highWatermark": format!("{}%", ingest.high_watermark),
                    "lowWatermark": format!("{}%", ingest.low_watermark),
                    "foreignGroupHold": ingest.foreign_group_hold,
                }),
            ),
            (
                "worker",
                json!({
                    "batchSize": workers.batch_size, "batchDelay": workers.batch_delay, "claimTime": workers.claim_time,
                    "deleteGrace": workers.delete_grace, "recordCids": workers.record_cids,
                }),
            ),
            (
                "verify",
                json!({
                    "mode": verify.mode.name(), "signatures": verify.signatures.name(),
                    "unresolved": verify.unresolved.name(), "memory": bytes(&verify.memory),
                }),
            ),
            (
                "identity",
                json!({
                    "enabled": identity.enabled, "plcUrl": identity.plc_url, "rate": identity.rate,
                    "timeout": identity.timeout, "maxAge": identity.max_age, "retryAfter": identity.retry_after,
                    "memory": bytes(&identity.memory), "allowedNetworks": identity.allowed_networks,
                    "dnsServer": identity.dns_server,
                }),
            ),
            (
                "heal",
                json!({
                    "parallelism": heal.parallelism, "auditRate": heal.audit_rate, "ofHost": heal.of_host, "hostRate": heal.host_rate, "spill": bytes(&heal.memory),
                    "folder": REPOS_FOLDER, "mirrors": heal.mirrors,
                }),
            ),
            (
                "dashboard",
                json!({
                    "allowedOrigins": dashboard.allowed_origins, "basePath": base_path,
                    "maxConnections": dashboard.max_connections,
                    "maxConnectionsPerPeer": dashboard.max_connections_per_peer,
                    "trustedProxies": dashboard.trusted_proxies,
                }),
            ),
            (
                "filter",
                match filter {
                    Some(_) => FILTER_FILES
                        .map(|(setting, file)| (setting, format!("@{SETTINGS_FOLDER}/{file}")))
                        .into_iter()
                        .collect(),
                    None => Value::Null,
                },
            ),
            ("telemetry", self::telemetry(telemetry, namespace, name)),
            ("pipeline", json!({"name": format!("{namespace}/{name}")})),
        ];
        let sections: Map<String, Value> = sections
            .into_iter()
            .filter(|(_, section)| !section.is_null())
            .map(|(name, section)| (name.to_owned(), without_nulls(section)))
            .collect();
        let text = serde_saphyr::to_string(&sections).map_err(|error| PlanError::WriteSettings(error.to_string()))?;
        Ok(Self { text, sections })
    }

    /// Reads the settings as they are without anybody's further variables.
    pub(super) fn load(&self, spec: &FirehosePipelineSpec, secrets: &Secrets) -> Result<Settings, PlanError> {
        check_filter(spec.filter.as_ref())?;
        self.read(addresses(spec, secrets), &BTreeMap::new(), "")
    }

    /// Reads the settings as a part does.
    pub(super) fn load_for(
        &self,
        part: Part,
        spec: &FirehosePipelineSpec,
        secrets: &Secrets,
    ) -> Result<Settings, PlanError> {
        let mut variables = addresses(spec, secrets);
        let further = further(part, spec, secrets);
        for (name, text) in &further {
            match text {
                Some(text) => variables.insert(name.clone(), text.clone()),
                // Known in the pod only.
                None => variables.remove(name),
            };
        }
        self.read(variables, &further, part.pod_field())
    }

    /// Returns what changes with the sections that a part reads.
    pub(super) fn hash_for(&self, part: Part) -> String {
        let texts: Vec<String> =
            part.sections().iter().filter_map(|name| self.sections.get(*name)).map(Value::to_string).collect();
        hash(texts.iter().map(String::as_str))
    }

    fn read(
        &self,
        variables: BTreeMap<String, String>,
        further: &BTreeMap<String, Option<String>>,
        pod_field: &str,
    ) -> Result<Settings, PlanError> {
        let layers = Layers::default()
            .environment(variables)
            .file("settings.yaml", &self.text)
            .map_err(|error| PlanError::WriteSettings(error.to_string()))?;
        let bad = |error: SettingError| BadField {
            field: match error.origin {
                Origin::Environment(name) if further.contains_key(&name) => format!("{pod_field}.extraEnv {name}"),
                Origin::Environment(name) => {
                    ADDRESSES.iter().find(|(variable, _)| *variable == name).map_or(name, |(_, field)| (*field).into())
                }
                _ => field_of(&error.field),
            },
            message: format!("{:?} is not allowed; allowed: {}", error.value, error.allowed),
        };
        let settings =
            Settings::load(&layers).map_err(|errors| PlanError::Fields(errors.0.into_iter().map(bad).collect()))?;
        if !penstock_telemetry::is_log_filter(&settings.telemetry.log_level) {
            return Err(PlanError::Fields(vec![BadField {
                field: "telemetry.logLevel".to_owned(),
                message: format!(
                    "{:?} is not allowed; allowed: error, warn, info, debug, trace, off, or a filter such as \
                     info,penstock_ingest=debug",
                    settings.telemetry.log_level
                ),
            }]));
        }
        Ok(settings)
    }
}

/// Reads the lists of the filter as ingest will: what it would refuse it would go on without.
fn check_filter(filter: Option<&Filter>) -> Result<(), PlanError> {
    let Some(Filter { collections, repos, exclude_repos }) = filter else { return Ok(()) };
    let lists = [("collections", collections), ("repos", repos), ("excludeRepos", exclude_repos)];
    let layers = lists.into_iter().filter(|(_, entries)| !entries.is_empty()).fold(
        // Where somebody writes the path of a file, that is no entry.
        Layers::default(),
        |layers, (name, entries)| layers.flag(&format!("filter.{name}"), format!(",{}", entries.join(","))),
    );
    let bad = |error: SettingError| BadField {
        message: format!("not allowed; allowed: {}", error.allowed),
        field: error.field,
    };
    Settings::load(&layers).map(drop).map_err(|errors| PlanError::Fields(errors.0.into_iter().map(bad).collect()))
}

/// The section on logs and traces; of the collector only where there is one.
fn telemetry(telemetry: &Telemetry, namespace: &str, name: &str) -> Value {
    let format = match telemetry.log_format {
        LogFormat::Json => "json",
        LogFormat::Pretty => "pretty",
    };
    let mut section = json!({"logLevel": telemetry.log_level, "logFormat": format});
    let otlp = &telemetry.otlp;
    if let (Some(endpoint), Value::Object(section)) = (&otlp.endpoint, &mut section) {
        let protocol = match otlp.protocol {
            OtlpProtocol::Grpc => "grpc",
            OtlpProtocol::HttpProtobuf => "http/protobuf",
        };
        let whose = format!("k8s.namespace.name={namespace},penstock.pipeline={name}");
        let collector = [
            ("otlpEndpoint", json!(endpoint)),
            ("otlpProtocol", json!(protocol)),
            ("otlpMetrics", json!(otlp.metrics)),
            ("sampleRatio", json!(format!("1/{}", otlp.sample_one_in))),
            ("resourceAttributes", json!(whose)),
        ];
        section.extend(collector.map(|(name, value)| (name.to_owned(), value)));
    }
    section
}

/// The variables that carry addresses out of Secrets.
fn addresses(spec: &FirehosePipelineSpec, secrets: &Secrets) -> BTreeMap<String, String> {
    let headers = spec.telemetry.otlp.headers_secret.as_ref();
    let postgres = &spec.postgres;
    let secret =
        [spec.redis.url_secret.as_ref(), postgres.url_secret.as_ref(), postgres.direct_url_secret.as_ref(), headers];
    let addresses = ADDRESSES.iter().zip(secret).map(|((variable, _), secret)| (*variable, secret));
    let certificates = spec.redis.certificates().map(|(variable, _, secret)| (variable, Some(secret)));
    addresses
        .chain(certificates)
        .filter_map(|(variable, secret)| Some((variable.to_owned(), secrets.get(secret?)?.to_owned())))
        .collect()
}

/// The variables that a person wrote; without a text where only the pod will know it.
fn further(part: Part, spec: &FirehosePipelineSpec, secrets: &Secrets) -> BTreeMap<String, Option<String>> {
    let variables = part.pod(spec).extra_env.iter().map(|variable| {
        let text = match (&variable.value_from, of_variable(variable)) {
            // Kubernetes puts other variables in the place of $(NAME).
            (None, _) => variable.value.clone().filter(|text| !text.contains("$(")),
            (Some(_), Some((secret, _))) => secrets.get(&secret).map(str::to_owned),
            (Some(_), None) => None,
        };
        (variable.name.clone(), text)
    });
    variables.collect()
}

/// Writes an amount of memory as the settings read it; what is none, they refuse.
fn bytes(memory: &Memory) -> Value {
    memory.bytes().map_or_else(|| json!(memory.0), |bytes| json!(bytes))
}

fn field_of(setting: &str) -> String {
    let renamed = FIELDS.iter().find_map(|(ours, theirs)| Some(format!("{theirs}{}", setting.strip_prefix(ours)?)));
    renamed.unwrap_or_else(|| setting.to_owned())
}

fn without_nulls(section: Value) -> Value {
    match section {
        Value::Object(map) => map.into_iter().filter(|(_, value)| !value.is_null()).collect(),
        other => other,
    }
}
