//! What stands at the end of each command's help: exit codes, variables, examples.

/// Of the binary itself.
pub(crate) const ALL: &str = "\
Exit codes: 0 done, or stopped by a signal; 1 failed; 64 invalid flags, variables or settings. `status` and `doctor` have their own: see their --help.

Environment: every setting has a variable, such as PENSTOCK_REDIS_URL for redis.url; `penstock settings` lists them.
  REDIS_URL        the Redis that holds the stream, such as redis://:password@host:6379
  DATABASE_URL     the PostgreSQL database, such as postgres://user:password@host/database
  RELAY_URL        the relay, such as wss://bsky.network
  PENSTOCK_URL     the dashboard that top, status and tail ask
  PENSTOCK_TOKEN   the token for it
  NO_COLOR         no colours in the log

Examples:
  penstock run                                          everything on this machine, with the bundled recording
  REDIS_URL=redis://redis:6379 penstock ingest          one service
  penstock --config penstock.yaml worker                one service, with a settings file
  penstock --set worker.batchSize=500 worker            one setting for this start
  penstock status                                       how the pipeline is";

/// Of `ingest`.
pub(crate) const INGEST: &str = "\
Exit codes: 0 stopped by a signal; 1 failed; 64 invalid settings.

Environment: RELAY_URL, REDIS_URL, ADMIN_ADDRESS, LOG_LEVEL, and those that `penstock settings` lists under relay, redis and ingest. DATABASE_URL, if
set, keeps the checkpoint for when Redis is lost.

Examples:
  REDIS_URL=redis://redis:6379 penstock ingest
  RELAY_URL=wss://bsky.network PENSTOCK_RELAY_START=oldest penstock ingest    from the relay's oldest event
  penstock --set redis.keyPrefix=test: ingest                                another pipeline in the same Redis";

/// Of `worker`.
pub(crate) const WORKER: &str = "\
Exit codes: 0 stopped by a signal; 1 failed; 64 invalid settings.

Environment: REDIS_URL, DATABASE_URL, CONSUMER_ID, ADMIN_ADDRESS, LOG_LEVEL, and those that `penstock settings` lists under redis, postgres and worker.

Examples:
  REDIS_URL=redis://redis:6379 DATABASE_URL=postgres://user:password@db/bluesky penstock worker
  ADMIN_ADDRESS=127.0.0.1:9465 penstock worker          a second one on the same machine";

/// Of `heal`.
pub(crate) const HEAL: &str = "\
Exit codes: 0 stopped by a signal; 1 failed; 64 invalid settings.

Environment: DATABASE_URL, RELAY_URL, PENSTOCK_HEAL_ADMIN_TOKEN, ADMIN_ADDRESS, LOG_LEVEL, and those that `penstock settings` lists under heal, identity
and postgres. Any number may run; Redis is not needed.

Examples:
  DATABASE_URL=postgres://user:password@db/bluesky penstock heal
  penstock --set heal.auditRate=3600 heal               compares one repo a second with its host, too
  PENSTOCK_HEAL_ADMIN_TOKEN=secret penstock heal        with PUT, GET and DELETE /backfills/NAME on the admin address";

/// Of `backfill`.
pub(crate) const BACKFILL: &str = "\
Interrupted, or after a crash, the same command goes on where it was. Several processes with the same arguments share the work, and so do healers.

Exit codes: 0 complete, registered, or stopped by a signal; 1 failed, or some repos were given up; 64 invalid flags or settings.

Environment: DATABASE_URL; RELAY_URL, the relay that lists repos; and those that `penstock settings` lists under heal, identity and postgres.

Examples:
  penstock backfill did:plc:ewvi7nxzyoun6zhxrhs64oiz
  penstock backfill --collection app.bsky.feed.generator
  penstock backfill --all --rate 20                     everything that the relay lists, 20 repos a second
  penstock backfill --all --to-healers                  the same, done by the healers that run
  penstock backfill --list                              how far backfills are";

/// Of `audit`.
pub(crate) const AUDIT: &str = "\
What a newer event explains is no difference. Nothing is written, but when a repo was found equal.

Environment: DATABASE_URL, and those that `penstock settings` lists under heal, identity and postgres.

Examples:
  penstock audit                                        the ten repos that were compared longest ago, or never
  penstock audit did:plc:ewvi7nxzyoun6zhxrhs64oiz --output json
  penstock audit --repos 1000 --repair                  and has healers mend what differs";

/// Of `dashboard`.
pub(crate) const DASHBOARD: &str = "\
Exit codes: 0 stopped by a signal; 1 failed; 64 invalid settings.

Environment: REDIS_URL, DATABASE_URL, DASHBOARD_ADDRESS, PENSTOCK_DASHBOARD_READ_TOKEN, PENSTOCK_DASHBOARD_ADMIN_TOKEN, ADMIN_ADDRESS, LOG_LEVEL, and those that
`penstock settings` lists under dashboard.

Examples:
  DASHBOARD_ADDRESS=127.0.0.1:8000 penstock dashboard   for this machine only
  PENSTOCK_DASHBOARD_ADMIN_TOKEN=secret penstock dashboard";

/// Of `operator`.
pub(crate) const OPERATOR: &str = "\
Exit codes: 0 stopped by a signal; 1 failed, or no longer the leader; 64 invalid settings.

Environment: KUBECONFIG outside a cluster, POD_NAME, POD_NAMESPACE, PENSTOCK_IMAGE, and those that `penstock settings` lists under operator.

Examples:
  penstock operator                                     in a pod; the Helm chart sets all it needs
  PENSTOCK_OPERATOR_WATCH_NAMESPACES=bluesky PENSTOCK_IMAGE=penstock:dev penstock operator";

/// Of `migrate`.
pub(crate) const MIGRATE: &str = "\
A migration may run while services and an AppView read and write: it takes short locks, tries again where a table is in use, and builds indexes beside
readers and writers. --recount and --rebuild hold up writers until they end.

Exit codes: 0 migrated, or nothing to do; 1 failed; 64 invalid settings; 69 PostgreSQL not reached, or it refuses the connection.

Environment: DATABASE_URL, or PENSTOCK_POSTGRES_HOST, PENSTOCK_POSTGRES_DATABASE and the like; DATABASE_DIRECT_URL, which goes before it, where that
leads through a pooler; PENSTOCK_MESSAGE_BUFFER_ENABLED=true for the table of the message system.

Examples:
  DATABASE_URL=postgres://user:password@db/bluesky penstock migrate
  penstock migrate --plan                               what it would do, lock, and how long
  penstock migrate --recount --plan                     the same with a recount
  penstock migrate --connect-timeout 2m                 for a database that is just starting";

/// Of `identity`.
pub(crate) const IDENTITY: &str = "\
Exit codes: see the --help of each. Environment: DATABASE_URL.

Examples:
  penstock identity import export.jsonl.gz
  penstock identity show did:plc:ewvi7nxzyoun6zhxrhs64oiz";

/// Of `prune`.
pub(crate) const PRUNE: &str = "\
Reads filter.collections, filter.repos and filter.excludeRepos as ingest does, and looks through every table. Services may run meanwhile. What was removed
does not come back with a replay; a backfill brings it back once the filter carries it again.

Exit codes: 0 done, or stopped by a signal; 1 failed; 64 invalid flags or settings.

Environment: DATABASE_URL, and those that `penstock settings` lists under filter and postgres.

Examples:
  penstock prune --dry-run
  PENSTOCK_FILTER_COLLECTIONS=app.bsky.*,!app.bsky.feed.like penstock prune";

/// Of `identity import`.
pub(crate) const IDENTITY_IMPORT: &str = "\
The file has the operations that https://plc.directory/export gives, one a line, as they are or packed by gzip. Of an account the latest counts, in whatever
order they come; what services have fetched later stays. What ends in between goes on where it was when the same command is given again, and a file that
was downloaded on meanwhile is read on. Services may run meanwhile.

Exit codes: 0 imported; 1 failed, and the same command goes on from there; 64 invalid flags or settings.

Environment: DATABASE_URL, or PENSTOCK_POSTGRES_HOST, PENSTOCK_POSTGRES_DATABASE and the like; LOG_LEVEL.

Examples:
  penstock identity import export.jsonl
  penstock identity import -                            from standard input
  penstock identity import --from-start export.jsonl.gz   all of it again";

/// Of `identity show`.
pub(crate) const IDENTITY_SHOW: &str = "\
Exit codes: 0 its commits can be verified; 1 they cannot: nothing is known, there is no key, or the directory says otherwise than the table; or not
reached; 64 invalid flags or settings.

Environment: DATABASE_URL, and those that `penstock settings` lists under identity.

Examples:
  penstock identity show did:plc:ewvi7nxzyoun6zhxrhs64oiz
  penstock identity show did:web:example.com --offline    only what the table says
  penstock identity show did:plc:ewvi7nxzyoun6zhxrhs64oiz --json | jq .network.key";

/// Of `repo`.
pub(crate) const REPO: &str = "\
The answer comes first: where the record stands, or why it does not: a dead letter, still in the stream, deleted, left out, missed, or not at its host
either. Below it is what it follows from. What cannot be asked (Redis, PostgreSQL, the network) is named, and the rest is told.

Exit codes: 0 as it should be; 1 not; 2 that is not known; 64 invalid flags or settings.

Environment: DATABASE_URL, REDIS_URL, and those that `penstock settings` lists under identity and heal.

Examples:
  penstock repo alice.example.com
  penstock repo at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/app.bsky.feed.post/3k4duaz5vfs2b
  penstock repo did:plc:ewvi7nxzyoun6zhxrhs64oiz --offline   only what is held here
  penstock repo alice.example.com --output json | jq .held.found.collections";

/// Of `doctor`.
pub(crate) const DOCTOR: &str = "\
Environment: as the services': REDIS_URL, DATABASE_URL and the like.

Examples:
  penstock doctor
  penstock doctor --json --pause 10s                    for a program, with 10 s between its two samples";

/// Of `replay`.
pub(crate) const REPLAY: &str = "\
With --plc, PENSTOCK_IDENTITY_PLC_URL=http://127.0.0.1:2470 and PENSTOCK_IDENTITY_ALLOWED_NETWORKS=127.0.0.0/8 let services on this machine resolve the
accounts there. Their operations are signed, but no DID is the hash of its first one, as the real directory's are.

Exit codes: 0 stopped by a signal; 1 failed; 64 invalid flags.

Environment: LOG_LEVEL.

Examples:
  penstock replay                                       the bundled recording, endless, as fast as clients read
  penstock replay --rate 500 --total 100000             100,000 events in 200 s
  penstock replay --recording events.bin --start-time now
  penstock replay --plc                                 signed, and the directory and host of its accounts too";

/// Of `simulate`.
pub(crate) const SIMULATE: &str = "\
Exit codes: 0 simulated; 1 failed; 64 invalid flags.

Environment: none.

Examples:
  penstock simulate                                     all built-in traces
  penstock simulate --trace spike --svg spike.svg
  penstock simulate --csv arrivals.csv --objective 10s --max-replicas 50";

/// Of `crd`.
pub(crate) const CRD: &str = "\
Exit codes: 0. Environment: none.

Examples:
  penstock crd > crds.yaml
  penstock crd | kubectl apply --server-side -f -";

/// Of `openapi`.
pub(crate) const OPENAPI: &str = "\
Exit codes: 0. Environment: none.

Examples:
  penstock openapi > openapi.json";

/// Of `healthcheck`.
pub(crate) const HEALTHCHECK: &str = "\
Exit codes: 0 alive; 1 not alive or not reached; 64 invalid settings.

Environment: ADMIN_ADDRESS.

Examples:
  penstock healthcheck
  penstock healthcheck 127.0.0.1:9465
  penstock healthcheck bluesky-ingest.firehose.svc:9464";

/// Of `log-level`.
pub(crate) const LOG_LEVEL: &str = "\
Exit codes: 0 shown or changed; 1 refused or not reached; 64 invalid settings.

Environment: ADMIN_ADDRESS.

Examples:
  penstock log-level                                    shows it
  penstock log-level debug
  penstock log-level info,penstock_ingest=debug --address 127.0.0.1:9465";

/// Of `top`.
pub(crate) const TOP: &str = "\
Keys: ? lists them, q ends.

Exit codes: 0 ended by a key or a signal; 1 the dashboard refuses or is not reached; 64 no terminal, invalid flags or settings.

Environment: PENSTOCK_URL, PENSTOCK_TOKEN; without a URL DASHBOARD_ADDRESS.

Examples:
  penstock top
  penstock top --url https://firehose.example.com --token-file token.txt";

/// Of `status`.
pub(crate) const STATUS: &str = "\
Environment: PENSTOCK_URL, PENSTOCK_TOKEN; without a URL DASHBOARD_ADDRESS.

Examples:
  penstock status
  PENSTOCK_URL=https://firehose.example.com penstock status --json";

/// Of `tail`.
pub(crate) const TAIL: &str = "\
Exit codes: 0 ended by a signal or --limit; 1 the dashboard refuses or is not reached; 64 invalid flags or settings.

Environment: PENSTOCK_URL, PENSTOCK_TOKEN; without a URL DASHBOARD_ADDRESS.

Examples:
  penstock tail --collection app.bsky.feed.post --limit 10
  penstock tail --did 'did:web:*' | jq -r .did";

/// Of `settings`.
pub(crate) const SETTINGS: &str = "\
A variable that begins with PENSTOCK_ and is no setting is named on standard error, with the nearest one.

Exit codes: 0. Environment: none.

Examples:
  penstock settings
  penstock settings --format md > settings.md
  penstock settings --format json | jq '.[].environment'";

/// Of `completions`.
pub(crate) const COMPLETIONS: &str = "\
Exit codes: 0 printed; 64 unknown shell. Environment: none.

Examples:
  penstock completions bash > ~/.local/share/bash-completion/completions/penstock
  penstock completions zsh > ~/.zfunc/_penstock
  penstock completions fish > ~/.config/fish/completions/penstock.fish";

/// Of `man`.
pub(crate) const MAN: &str = "\
Exit codes: 0 written; 1 the folder cannot be written. Environment: none.

Examples:
  penstock man ~/.local/share/man/man1                  then: man penstock-migrate
  penstock man | man -l -                               only the page of the binary itself";

/// Of the plugin itself.
pub(crate) const PLUGIN: &str = "\
Exit codes: 0 done; 1 failed; 64 invalid flags. `status` has its own: see its --help.

Environment: KUBECONFIG.

Examples:
  kubectl penstock status
  kubectl penstock -n bluesky top
  kubectl penstock tail main --collection app.bsky.feed.post";

/// Of the plugin's `status`.
pub(crate) const PLUGIN_STATUS: &str = "\
Environment: KUBECONFIG.

Examples:
  kubectl penstock status                               all of the namespace
  kubectl penstock status main --json";

/// Of the plugin's `top`.
pub(crate) const PLUGIN_TOP: &str = "\
Exit codes: 0 ended by a key or a signal; 1 not reached; 64 no terminal, invalid flags.

Environment: KUBECONFIG.

Examples:
  kubectl penstock top
  kubectl penstock top main -n bluesky";

/// Of the plugin's `tail`.
pub(crate) const PLUGIN_TAIL: &str = "\
Exit codes: 0 ended by a signal or --limit; 1 not reached; 64 invalid flags.

Environment: KUBECONFIG.

Examples:
  kubectl penstock tail --collection app.bsky.feed.post --limit 10
  kubectl penstock tail main --did 'did:web:*'";

/// Of the plugin's `report`.
pub(crate) const PLUGIN_REPORT: &str = "\
Exit codes: 0 written; 1 failed; 64 invalid flags.

Environment: KUBECONFIG.

Examples:
  kubectl penstock report
  kubectl penstock report main --output report.tar.gz --log-lines 500";
