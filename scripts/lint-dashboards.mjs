// Checks deploy/grafana/*.json by the rules of Grafana's dashboard-linter (datasource, title and description, units, targets, rate
// interval, counters, reload of variables, not editable), with namespace and pipeline in the place of its job and instance; and by our own:
// legends, places that do not overlap, runbooks that exist. Breaks a dashboard in each way first: a rule that lets that pass fails.
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { basename, join } from "node:path";

const FOLDER = "deploy/grafana";
const UNITS = ["none", "short", "s", "ops", "reqps", "bytes", "Bps", "percentunit"];
const RUNBOOKS = "https://github.com/penstock/penstock/blob/main/docs/runbooks/";
const DATASOURCE = "$datasource";
// Panels that are about every namespace and pipeline, whichever are chosen.
const ABOUT_ALL = ["Workers by pipeline"];

/** What surrounds each place of `metric` in an expression: the range behind it, and the function before it. */
function* selectors(expr) {
  for (const match of expr.matchAll(/(\w+\()?\s*\b((?:penstock|process)_\w+)(\{[^}]*\})?(\[[^\]]+\])?/g)) {
    const [, call = "", metric, labels = "", range = ""] = match;
    yield { call: call.slice(0, -1), metric, labels, range: range.slice(1, -1) };
  }
}

/** What is wrong with a dashboard, one text each. */
function lint(dashboard) {
  const wrong = [];
  const panels = dashboard.panels.filter(({ type }) => type !== "row");
  const variables = dashboard.templating.list;

  if (dashboard.editable !== false) wrong.push("is editable");
  const sources = variables.filter(({ type }) => type === "datasource");
  if (sources.length !== 1 || sources[0].name !== "datasource" || sources[0].label !== "Data source") wrong.push("needs one variable datasource, labelled Data source");
  const queried = variables.filter(({ type }) => type === "query");
  for (const { name, label, refresh, multi, datasource } of queried) {
    if (refresh !== 2) wrong.push(`variable ${name}: is not read again when the time range changes`);
    if (!label || !multi) wrong.push(`variable ${name}: needs a label, and several values`);
    if (datasource?.uid !== DATASOURCE) wrong.push(`variable ${name}: does not use ${DATASOURCE}`);
  }
  if (!queried.some(({ name }) => name === "namespace")) wrong.push("needs a variable namespace");
  const chosen = queried.map(({ name }) => name);

  const ids = new Set();
  const taken = new Map();
  for (const panel of dashboard.panels) {
    if (ids.has(panel.id)) wrong.push(`${panel.title}: has the ID of another panel`);
    ids.add(panel.id);
    const { x, y, w, h } = panel.gridPos;
    if (x + w > 24) wrong.push(`${panel.title}: is beyond the right edge`);
    const places = Array.from({ length: w * h }, (_, at) => `${x + (at % w)}/${y + Math.floor(at / w)}`);
    const other = places.map((place) => taken.get(place)).find(Boolean);
    if (other) wrong.push(`${panel.title}: lies over ${other}`);
    for (const place of places) taken.set(place, panel.title);
  }

  for (const { type, title, description, datasource, targets = [], fieldConfig, options, links = [] } of panels) {
    const say = (what) => wrong.push(`${title || "a panel"}: ${what}`);
    if (!title || !description) say("needs a title and a description");
    if (datasource?.uid !== DATASOURCE) say(`does not use ${DATASOURCE}`);
    const unit = type === "heatmap" ? options?.yAxis?.unit : fieldConfig?.defaults?.unit;
    if (!UNITS.includes(unit)) say(`has the unit ${unit}`);
    if (type === "timeseries" && !options?.legend) say("needs a legend");
    if (targets.length === 0) say("has no query");
    for (const { url } of links) {
      if (!url.startsWith(RUNBOOKS) || !existsSync(join("docs/runbooks", basename(url)))) say(`links to no runbook: ${url}`);
    }
    for (const { expr, legendFormat, format, datasource: asked } of targets) {
      if (asked?.uid !== DATASOURCE) say(`asks another source than ${DATASOURCE}`);
      if (!legendFormat && format !== "table") say(`has no legend for ${expr}`);
      for (const { call, metric, labels, range } of selectors(expr)) {
        if (["rate", "irate"].includes(call) && range !== "$__rate_interval") say(`${call} of ${metric} is over ${range}, not $__rate_interval`);
        if (metric.endsWith("_total") && !["rate", "irate", "increase"].includes(call)) say(`${metric} is a counter, and wants rate or increase`);
        for (const name of ABOUT_ALL.includes(title) ? [] : chosen) {
          if (!labels.includes(`${name}=~"$${name}`)) say(`${metric} is asked for whatever ${name} is chosen`);
        }
      }
    }
  }
  return wrong;
}

const names = readdirSync(FOLDER).filter((name) => name.endsWith(".json"));
const read = (name) => JSON.parse(readFileSync(join(FOLDER, name), "utf8"));
const failures = names.flatMap((name) => lint(read(name)).map((wrong) => `${name}: ${wrong}`));

// === what each rule is there for ===

const panelOf = (dashboard, type) => dashboard.panels.find((panel) => panel.type === type);
const target = (dashboard, expr) => (panelOf(dashboard, "timeseries").targets[0].expr = expr);
const BREAKS = [
  ["is editable", (it) => (it.editable = true)],
  ["needs one variable datasource", (it) => (it.templating.list[0].label = "Prometheus")],
  ["needs one variable datasource", (it) => it.templating.list.push({ ...it.templating.list[0] })],
  ["is not read again", (it) => (it.templating.list[1].refresh = 1)],
  ["needs a label, and several values", (it) => (it.templating.list[1].multi = false)],
  ["variable namespace: does not use", (it) => (it.templating.list[1].datasource = { uid: "prometheus" })],
  ["needs a variable namespace", (it) => (it.templating.list[1].name = "cluster")],
  ["has the ID of another", (it) => (it.panels[1].id = it.panels[2].id)],
  ["beyond the right edge", (it) => (it.panels[1].gridPos.w = 25)],
  ["lies over", (it) => (it.panels[2].gridPos = { ...it.panels[1].gridPos })],
  ["needs a title and a description", (it) => (panelOf(it, "stat").description = "")],
  ["does not use $datasource", (it) => (panelOf(it, "table").datasource = { uid: "prometheus" })],
  ["has the unit undefined", (it) => delete panelOf(it, "timeseries").fieldConfig.defaults.unit],
  ["has the unit furlongs", (it) => (panelOf(it, "stat").fieldConfig.defaults.unit = "furlongs")],
  ["needs a legend", (it) => delete panelOf(it, "timeseries").options.legend],
  ["has no query", (it) => (panelOf(it, "stat").targets = [])],
  ["links to no runbook", (it) => (panelOf(it, "stat").links = [{ url: `${RUNBOOKS}PenstockNothing.md` }])],
  ["asks another source", (it) => (panelOf(it, "stat").targets[0].datasource = { uid: "prometheus" })],
  ["has no legend for", (it) => (panelOf(it, "timeseries").targets[0].legendFormat = "")],
  ["is over 5m", (it) => target(it, 'rate(penstock_ingest_events_total{namespace=~"$namespace",pipeline=~"$pipeline"}[5m])')],
  ["is a counter", (it) => target(it, 'penstock_ingest_events_total{namespace=~"$namespace",pipeline=~"$pipeline"}')],
  ["is a counter", (it) => target(it, 'delta(penstock_ingest_events_total{namespace=~"$namespace",pipeline=~"$pipeline"}[$__rate_interval])')],
  ["whatever pipeline is chosen", (it) => target(it, 'penstock_ingest_connected{namespace=~"$namespace"}')],
];
for (const [says, breaks] of BREAKS) {
  const dashboard = read("overview.json");
  breaks(dashboard);
  const said = lint(dashboard);
  if (!said.some((wrong) => wrong.includes(says))) failures.push(`the rule "${says}" lets ${breaks} pass: ${said}`);
}

for (const failure of failures) console.error(`dashboards: FAILED: ${failure}`);
if (failures.length > 0) process.exit(1);
console.log(`dashboards: ${names.length} dashboards and ${BREAKS.length} broken ones passed`);
