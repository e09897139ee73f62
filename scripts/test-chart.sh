#!/usr/bin/env bash
# Checks charts/penstock and deploy/samples: lint, values that the schema refuses, and everything that is rendered against a real API
# server. Takes helm from the PATH and kube-apiserver, etcd and kubectl from KUBEBUILDER_ASSETS; says in one line what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
chart=charts/penstock
failures=0

fail() { printf 'chart: FAILED: %s\n' "$*" >&2; failures=$((failures + 1)); }
skip() { printf 'chart: skipped %s\n' "$*"; }
finish() {
  [ "$failures" -eq 0 ] || { printf 'chart: %d failed\n' "$failures" >&2; exit 1; }
  printf 'chart: %s in %d s\n' "$1" "$SECONDS"
  exit 0
}

# === where the programs are ===

assets=$(scripts/envtest.sh --find) || assets=
[ -z "$assets" ] || PATH=$PATH:$assets
command -v helm >/dev/null || { skip 'everything: helm is missing (https://helm.sh/docs/intro/install, version 3.17 or newer)'; exit 0; }

work=$(mktemp -d)
started=()
cleanup() {
  # Not asked politely: what they hold goes with the folder, and the API server would take its time.
  [ ${#started[@]} -eq 0 ] || { kill -KILL "${started[@]}"; wait "${started[@]}"; } 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
export HELM_CACHE_HOME=$work/helm HELM_CONFIG_HOME=$work/helm HELM_DATA_HOME=$work/helm
export KUBECONFIG=$work/kubeconfig KUBECACHEDIR=$work/kubectl

# === the API server, which starts while the chart is linted ===

free_port() {
  local port
  while port=$((20000 + RANDOM % 10000)); (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
  printf '%s' "$port"
}

start_api_server() {
  local store peer port
  store=$(free_port) peer=$(free_port) port=$(free_port)
  openssl genrsa -out "$work/accounts.key" 2048 2>/dev/null
  printf 'admin,admin,admin,system:masters\n' >"$work/tokens"
  cat >"$KUBECONFIG" <<CONFIG
apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "https://127.0.0.1:$port", insecure-skip-tls-verify: true}}]
users: [{name: admin, user: {token: admin}}]
contexts: [{name: test, context: {cluster: test, user: admin}}]
current-context: test
CONFIG
  etcd --data-dir "$work/etcd" --unsafe-no-fsync --listen-client-urls "http://127.0.0.1:$store" \
    --advertise-client-urls "http://127.0.0.1:$store" --listen-peer-urls "http://127.0.0.1:$peer" \
    --initial-advertise-peer-urls "http://127.0.0.1:$peer" --initial-cluster "default=http://127.0.0.1:$peer" \
    >"$work/etcd.log" 2>&1 &
  started+=($!)
  # Without a controller manager nobody makes the ServiceAccounts that the plugin of that name asks for.
  kube-apiserver --etcd-servers "http://127.0.0.1:$store" --bind-address 127.0.0.1 --secure-port "$port" --cert-dir "$work/certs" \
    --token-auth-file "$work/tokens" --authorization-mode RBAC --disable-admission-plugins ServiceAccount \
    --service-account-issuer https://test --service-account-key-file "$work/accounts.key" \
    --service-account-signing-key-file "$work/accounts.key" --service-cluster-ip-range 10.0.0.0/24 >"$work/apiserver.log" 2>&1 &
  started+=($!)
}

await_api_server() {
  local deadline=$((SECONDS + 120))
  until kubectl get --raw /readyz >/dev/null 2>&1; do
    if [ "$SECONDS" -gt "$deadline" ] || ! kill -0 "${started[@]}" 2>/dev/null; then
      tail -n 20 "$work"/*.log >&2
      fail 'the API server did not start'
      finish ''
    fi
    sleep 0.1
  done
}

missing=
for program in etcd kube-apiserver kubectl openssl; do command -v "$program" >/dev/null || missing+=" $program"; done
[ -n "$missing" ] || start_api_server

# === the chart by itself ===

linted=$(helm lint --strict "$chart" --values "$chart/values/everything.yaml" 2>&1) || fail "lint: $linted"

render() { # values file or "default", further arguments
  local values=()
  [ "$1" = default ] || values=(--values "$chart/values/$1.yaml")
  helm template penstock "$chart" --namespace penstock "${values[@]}" "${@:2}"
}

refused() { # message, arguments
  local said
  if said=$(helm template penstock "$chart" "${@:2}" 2>&1); then
    fail "the schema takes ${*:2}"
  elif [[ $said != *"$1"* ]]; then
    fail "${*:2} is refused, but not with '$1': $said"
  fi
}
refused "additional properties 'replicaCount' not allowed" --set replicaCount=2
refused "at '/replicas': got string, want integer" --set-string replicas=2
refused "at '/replicas': maximum: got 50, want 5" --set replicas=50
refused "at '/rbac/scope': value must be one of 'cluster', 'namespace'" --set rbac.scope=everywhere
refused "at '/rbac': additional properties 'wide' not allowed" --set rbac.wide=true
refused "at '/image/pullPolicy': value must be one of" --set image.pullPolicy=Sometimes
refused "at '/image/digest': 'sha256:abc' does not match pattern" --set image.digest=sha256:abc
refused "at '/image/repository': 'penstock@sha256:abc' does not match pattern" --set image.repository=penstock@sha256:abc
refused "at '/watchNamespaces/0': 'Team A' does not match pattern" --set 'watchNamespaces={Team A}'
refused "at '/operator/scalingInterval': 'often' does not match pattern" --set operator.scalingInterval=often
refused "at '/log/format': value must be one of 'json', 'pretty'" --set log.format=xml
refused "at '/commonLabels/a': got number, want string" --set commonLabels.a=1
refused "at '/imagePullSecrets/0': got string, want object" --set 'imagePullSecrets={registry}'
refused "at '/dev/redis/maxmemory': '1Gi' does not match pattern" --set dev.redis.maxmemory=1Gi
refused "at '/service/ipFamilyPolicy': value must be one of" --set service.ipFamilyPolicy=Dual
refused "at '/service/metricsPort': maximum: got 70,000, want 65,535" --set service.metricsPort=70000
refused "at '/runbooks/url': 'wiki/' does not match pattern" --set runbooks.url=wiki/
refused "serviceAccount.name must name an existing ServiceAccount" --set serviceAccount.create=false

# Every rendering has the same passwords, for `helm template | kubectl apply` and Argo CD, which cannot read back the last ones.
rendered=$(render dev) again=$(render dev) seeded=$(render dev --set dev.passwordSeed=mine)
[ "$rendered" = "$again" ] || fail 'two renderings with the evaluation servers differ'
passwords() { grep -E '^  (password|url): ' | sort -u; }
[ "$(passwords <<<"$rendered" | wc -l)" = 4 ] || fail 'the evaluation servers do not have a password and a URL each'
[ "$(passwords <<<"$rendered" | grep -Fxc "$(passwords <<<"$seeded")")" = 0 ] || fail 'dev.passwordSeed leaves a password as it was'
own=$(render dev --set dev.redis.existingSecret=own --set dev.postgres.existingSecret=own)
! grep -q 'kind: Secret$' <<<"$own" || fail 'a Secret is made although existingSecret names one'
[ "$(grep -c 'secretKeyRef: {name: own, key: password}' <<<"$own")" = 2 ] || fail 'existingSecret is not what the evaluation servers read'

# No pod asks for a user where the platform gives one.
! render default | grep -E 'runAs(User|Group)|fsGroup' || fail 'the operator asks for a user'
! render dev --values "$chart/values/openshift.yaml" | grep -E 'runAs(User|Group)|fsGroup' || fail 'with values/openshift.yaml a pod asks for a user'

# With runbooks of one's own, no link leads elsewhere: neither in alerts and dashboards nor in the operator's settings.
linked=$(render everything | grep -o 'https\?://[^ "]*/\(docs/runbooks\|wiki.example.com/penstock\)[^ ",}]*\|https://wiki.example.com/penstock[^ ",}]*' | sort | uniq -c)
grep -q 'https://wiki.example.com/penstock/PenstockStalled.md' <<<"$linked" || fail 'runbooks.url is not where alerts link to'
grep -q 'https://wiki.example.com/penstock/README.md' <<<"$linked" || fail 'runbooks.url is not where dashboards link to'
grep -q 'https://wiki.example.com/penstock$' <<<"$linked" || fail "runbooks.url is not among the operator's settings"
! grep 'docs/runbooks' <<<"$linked" || fail 'runbooks.url leaves links to other runbooks'

# Dashboards and alerts ask for metrics that exist.
while read -r metric; do
  grep -q "\"${metric%_bucket}\"\|\"${metric%_sum}\"\|\"${metric%_count}\"" crates/telemetry/src/metrics/definitions.rs ||
    fail "no metric is called $metric"
done < <(grep -ohE '\bpenstock_(ingest|worker|heal|dashboard|operator|autoscale|dead)[a-z_]*' "$chart"/dashboards/*.json "$chart"/files/*.rules.yaml | sort -u)

# The operator's settings are names that it knows: an unknown one would end it at once.
while read -r setting; do
  grep -q "^| \`$setting\` |" docs/settings.md || fail "no setting is called $setting"
done < <(render everything --show-only templates/settings.yaml |
  awk '/^    [a-z]/ { sub(/:.*/, ""); section = $1 } /^      [a-z]/ { sub(/:.*/, ""); print section "." $1 }')

if [ -n "$missing" ]; then
  skip "tests that need an API server: missing$missing (run make envtest)"
  finish 'lint and schema passed'
fi

# === against the API server ===

await_api_server
for namespace in penstock team-a team-b monitoring small; do
  printf 'apiVersion: v1\nkind: Namespace\nmetadata: {name: %s, labels: {pod-security.kubernetes.io/enforce: restricted, pod-security.kubernetes.io/warn: restricted}}\n---\n' "$namespace"
done | kubectl apply --filename - >/dev/null
# The kinds of the Prometheus operator, of Argo CD and of Flux: the last two from GITOPS_CRDS, a folder with their definitions, where it is
# set, and then with every field checked; all others without their schemas.
foreign() { # kind, plural, group, version
  cat <<CRD
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: $2.$3, annotations: {api-approved.kubernetes.io: unapproved}}
spec:
  group: $3
  scope: Namespaced
  names: {kind: $1, plural: $2}
  versions: [{name: $4, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
---
CRD
}
{
  foreign ServiceMonitor servicemonitors monitoring.coreos.com v1
  foreign PrometheusRule prometheusrules monitoring.coreos.com v1
  if [ -z "${GITOPS_CRDS:-}" ]; then
    foreign Application applications argoproj.io v1alpha1
    foreign GitRepository gitrepositories source.toolkit.fluxcd.io v1
    foreign OCIRepository ocirepositories source.toolkit.fluxcd.io v1
    foreign HelmRelease helmreleases helm.toolkit.fluxcd.io v2
    foreign Kustomization kustomizations kustomize.toolkit.fluxcd.io v1
  fi
} | kubectl apply --filename - >/dev/null
if [ -n "${GITOPS_CRDS:-}" ]; then kubectl apply --server-side --filename "$GITOPS_CRDS" >/dev/null; else skip 'the fields of deploy/argocd and deploy/flux: GITOPS_CRDS names no folder with their definitions'; fi
kubectl wait --for condition=Established crd --all --timeout 60s >/dev/null

# A warning counts as a failure: it is how pods that are not restricted, and old API versions, show.
accepted() { # what, file
  local said
  said=$(kubectl apply --dry-run=server --server-side --filename "$2" 2>&1) || { fail "$1: $said"; return; }
  [[ $said != *Warning* ]] || fail "$1: $(grep Warning <<<"$said")"
}
for values in default ha namespaced dev openshift everything; do
  if render "$values" >"$work/$values.yaml"; then accepted "values of $values" "$work/$values.yaml"; else fail "values of $values do not render"; fi
done

# Installed, upgraded and uninstalled: passwords stay, and so does the CustomResourceDefinition.
password() { kubectl --namespace penstock get secret penstock-dev-redis --output 'jsonpath={.data.password}'; }
said=$(helm install penstock "$chart" --namespace penstock --values "$chart/values/dev.yaml" 2>&1) || fail "install: $said"
before=$(password)
said=$(helm upgrade penstock "$chart" --namespace penstock --values "$chart/values/dev.yaml" --set replicas=2 2>&1) || fail "upgrade: $said"
{ [ -n "$before" ] && [ "$before" = "$(password)" ]; } || fail 'the password of the evaluation Redis changed with an upgrade'
kubectl wait --for condition=Established crd firehosepipelines.penstock.dev --timeout 60s >/dev/null || fail 'no FirehosePipeline after install'
kubectl explain firehosepipelines.spec.relay.urls >/dev/null || fail 'kubectl explain does not know the pipelines'

# What Argo CD and Flux are told: kinds that there are, values that the chart takes, and only sources and releases that are named there too.
for namespace in argocd flux-system; do kubectl create namespace "$namespace" >/dev/null; done
# What of each object in a file, a line each.
told() { kubectl create --dry-run=server --validate=strict --filename "$1" --output "jsonpath=$2{'\n'}" 2>"$work/said"; }
for file in deploy/argocd/*.yaml deploy/flux/*.yaml; do
  there=$(told "$file" '{.kind}/{.metadata.name}') || { fail "$file: $(<"$work/said")"; continue; }
  while read -r values; do
    [ -z "$values" ] || helm template penstock "$chart" --values - <<<"$values" >/dev/null || fail "the chart refuses the values of $file"
  done < <(told "$file" '{.spec.source.helm.valuesObject}{.spec.values}')
  while read -r named; do
    [[ $named != charts* || -f $named/Chart.yaml ]] || fail "$file: there is no chart in $named"
  done < <(told "$file" '{.spec.source.path}{.spec.chart.spec.chart}')
  for named in $(told "$file" '{.spec.sourceRef.kind}/{.spec.sourceRef.name} {.spec.chart.spec.sourceRef.kind}/{.spec.chart.spec.sourceRef.name} {.spec.chartRef.kind}/{.spec.chartRef.name}') $(told "$file" '{.spec.dependsOn[*].name}' | sed 's,[^ ][^ ]*,Kustomization/&,g'); do
    [ "$named" = / ] || grep -qFx "$named" <<<"$there" || fail "$file names $named, which it has not"
  done
done

for sample in deploy/samples/*.yaml; do accepted "$sample" "$sample"; done
kubectl apply --server-side --filename deploy/observability/namespace.yaml >/dev/null
if kubectl kustomize deploy/observability >"$work/observability.yaml"; then
  accepted deploy/observability "$work/observability.yaml"
else
  fail 'deploy/observability does not build'
fi

# === what the roles allow ===

render namespaced --show-only templates/rbac.yaml --show-only templates/serviceaccount.yaml |
  sed 's/namespace: "penstock"$/namespace: small/; s/namespace: penstock}/namespace: small}/' | kubectl apply --filename - >/dev/null
for role in view edit admin; do
  kubectl create clusterrolebinding "test-$role" --clusterrole "penstock-$role" --user "$role" >/dev/null
done
# A line: the answer; who; in which namespace; the verb; the group; the resource, with its subresource and name.
grep -v '^ *$' >"$work/questions" <<'QUESTIONS'
  true  system:serviceaccount:penstock:penstock-operator  team-a    patch   penstock.dev         firehosepipelines
  true  system:serviceaccount:penstock:penstock-operator  team-a    patch   penstock.dev         firehosepipelines/status
  true  system:serviceaccount:penstock:penstock-operator  team-b    patch   apps                 deployments/scale
  true  system:serviceaccount:penstock:penstock-operator  team-b    create  batch                jobs
  true  system:serviceaccount:penstock:penstock-operator  penstock  update  coordination.k8s.io  leases//penstock-operator
  false system:serviceaccount:penstock:penstock-operator  penstock  update  coordination.k8s.io  leases//another
  false system:serviceaccount:penstock:penstock-operator  team-a    create  coordination.k8s.io  leases
  false system:serviceaccount:penstock:penstock-operator  team-a    create  penstock.dev         firehosepipelines
  false system:serviceaccount:penstock:penstock-operator  team-a    delete  penstock.dev         firehosepipelines
  true  system:serviceaccount:penstock:penstock-operator  team-a    delete  penstock.dev         firehosebackfills
  false system:serviceaccount:penstock:penstock-operator  team-a    create  penstock.dev         firehosebackfills
  false system:serviceaccount:penstock:penstock-operator  team-a    create  -                    secrets
  false system:serviceaccount:penstock:penstock-operator  team-a    patch   -                    secrets
  true  system:serviceaccount:penstock:penstock-operator  penstock  create  -                    secrets
  true  system:serviceaccount:penstock:penstock-operator  penstock  get     -                    secrets//penstock-operator-hash-key
  false system:serviceaccount:penstock:penstock-operator  team-a    create  -                    pods/exec
  false system:serviceaccount:penstock:penstock-operator  team-a    create  rbac.authorization.k8s.io  rolebindings
  false system:serviceaccount:penstock:penstock-operator  team-a    patch   apps                 statefulsets
  true  system:serviceaccount:small:penstock-operator     team-a    patch   apps                 deployments
  true  system:serviceaccount:small:penstock-operator     team-b    watch   -                    secrets
  true  system:serviceaccount:small:penstock-operator     small     get     coordination.k8s.io  leases//penstock-operator
  false system:serviceaccount:small:penstock-operator     small     get     -                    secrets
  true  system:serviceaccount:small:penstock-operator     small     get     -                    secrets//penstock-operator-hash-key
  false system:serviceaccount:small:penstock-operator     monitoring  get   -                    secrets
  false system:serviceaccount:small:penstock-operator     -         list    penstock.dev         firehosepipelines
  true  view   team-a  list    penstock.dev  firehosepipelines
  false view   team-a  patch   penstock.dev  firehosepipelines/scale
  true  edit   team-a  create  penstock.dev  firehosepipelines
  true  edit   team-a  update  penstock.dev  firehosepipelines/scale
  true  view   team-a  list    penstock.dev  firehosebackfills
  true  edit   team-a  create  penstock.dev  firehosebackfills
  false edit   team-a  patch   penstock.dev  firehosebackfills/status
  false edit   team-a  patch   penstock.dev  firehosepipelines/status
  true  admin  team-a  patch   penstock.dev  firehosepipelines/status
QUESTIONS
while read -r _ who namespace verb group resource; do
  IFS=/ read -r resource subresource name <<<"$resource"
  printf 'apiVersion: authorization.k8s.io/v1\nkind: SubjectAccessReview\nspec: {user: "%s", resourceAttributes: {namespace: "%s", verb: %s, group: "%s", resource: %s, subresource: "%s", name: "%s"}}\n---\n' \
    "$who" "${namespace#-}" "$verb" "${group#-}" "$resource" "$subresource" "$name"
done <"$work/questions" >"$work/reviews.yaml"
kubectl create --filename "$work/reviews.yaml" --output 'jsonpath={.status.allowed}{"\n"}' >"$work/answers"
while read -r answer wanted question; do
  [ "$answer" = "$wanted" ] || fail "allowed is $answer, not $wanted: $question"
done < <(paste -d ' ' "$work/answers" "$work/questions")

said=$(helm uninstall penstock --namespace penstock 2>&1) || fail "uninstall: $said"
kubectl get crd firehosepipelines.penstock.dev >/dev/null 2>&1 || fail 'the CustomResourceDefinition went with the release'
! kubectl get clusterrole penstock-operator >/dev/null 2>&1 || fail 'the ClusterRole stayed after uninstall'

finish 'lint, schema, every values file, samples, install, upgrade, uninstall and roles passed'
