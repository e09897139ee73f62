/** What comes in beside what is applied, over the last minutes, hours or days; and the two kinds that commits dwarf. */

import { batch, computed, signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { range, rangeAt, rangeProblem, view, watchRange } from "../activity";
import { Strip } from "../chart";
import { NONE, age, clock, count, duration, full, minute, moment, rate } from "../format";
import { LIVE, RANGES, type View, applied, grouped, pan, pointsOf, zoomBy, zoomTo } from "../history";
import { Panel } from "../parts";
import { KINDS, type Point } from "../rates";
import { dim, history, metrics, now, rates, version } from "../store";
import "./activity.css";

const ROWS = [
  { key: "all", name: "Applied", of: applied },
  { key: "identity", name: "Identities", of: (point: Point) => point.identity },
  { key: "account", name: "Accounts", of: (point: Point) => point.account },
] as const;

/** What is pointed at, by mouse or keys: a time, in seconds. */
const pointed = signal<number | null>(null);

const points = computed((): Point[] => {
  version.value;
  return view.value.seconds === LIVE ? [...rates.points] : pointsOf(range.value?.points ?? []);
});

/** Where the range ends: by the clock of the figures, so that the curve stands where they ended. */
const end = computed((): number => {
  version.value;
  if (view.value.seconds === LIVE) return rates.points.at(-1)?.at ?? Date.now() / 1000;
  const last = range.value?.points.at(-1);
  const spans = last ? last.timestamp / 1000 + last.seconds : 0;
  return view.value.zoom ? Date.now() / 1000 : Math.max(spans, rangeAt.value / 1000) || Date.now() / 1000;
});

const shown = computed((): [number, number] => {
  const { zoom, seconds } = view.value;
  return zoom ? [zoom[0], zoom[1]] : [end.value - seconds, end.value];
});

const marks = computed(() => {
  const [from, to] = shown.value;
  const known = view.value.seconds === LIVE ? history.value.value?.marks : range.value?.marks;
  return grouped((known ?? []).filter((mark) => mark.timestamp >= from * 1000 && mark.timestamp <= to * 1000), to - from);
});

function look(next: View): void {
  batch(() => {
    view.value = next;
    pointed.value = null;
  });
}

/** The point nearest to a time. */
function nearest(all: readonly Point[], at: number): Point | null {
  return all.reduce<Point | null>((best, point) => (!best || Math.abs(point.at - at) < Math.abs(best.at - at) ? point : best), null);
}

function when(at: number, seconds: number): string {
  if (seconds <= 1_800) return clock(at * 1000);
  return seconds <= 172_800 ? minute(at * 1000) : moment(at * 1000);
}

function mean(all: readonly Point[], of: (point: Point) => number | null): number | null {
  const known = all.map(of).filter((value) => value !== null);
  return known.length === 0 ? null : known.reduce((sum, value) => sum + value, 0) / known.length;
}

function keys(event: KeyboardEvent): void {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const [from, to] = shown.value;
  const inside = points.value.filter((point) => point.at >= from && point.at <= to);
  const step = (by: number) => {
    const at = pointed.value === null ? -1 : inside.indexOf(nearest(inside, pointed.value) as Point);
    const next = at < 0 ? (by < 0 ? inside.length - 1 : 0) : Math.min(Math.max(at + by, 0), inside.length - 1);
    pointed.value = inside[next]?.at ?? null;
  };
  const acts: Record<string, () => void> = {
    ArrowLeft: () => (event.shiftKey ? look(pan(view.value, -0.25, end.value)) : step(-1)),
    ArrowRight: () => (event.shiftKey ? look(pan(view.value, 0.25, end.value)) : step(1)),
    Home: () => { pointed.value = inside[0]?.at ?? null; },
    End: () => { pointed.value = inside.at(-1)?.at ?? null; },
    "+": () => look(zoomBy(view.value, 0.5, pointed.value, end.value)),
    "=": () => look(zoomBy(view.value, 0.5, pointed.value, end.value)),
    "-": () => look(zoomBy(view.value, 2, pointed.value, end.value)),
    Escape: () => look({ ...view.value, zoom: null }),
  };
  const act = acts[event.key];
  if (!act || (event.key === "Escape" && !view.value.zoom && pointed.value === null)) return;
  event.preventDefault();
  event.stopPropagation();
  act();
}

function Ranges() {
  const { seconds, zoom } = view.value;
  return (
    <span class="ranges">
      <button type="button" aria-label="Zoom out" disabled={!zoom} onClick={() => look(zoomBy(view.value, 2, null, end.value))}>−</button>
      <button type="button" aria-label="Zoom in" onClick={() => look(zoomBy(view.value, 0.5, null, end.value))}>+</button>
      <span class="choice" role="group" aria-label="Range">
        {RANGES.map((choice) => (
          <button type="button" key={choice.name} aria-pressed={seconds === choice.seconds && !zoom} onClick={() => look({ seconds: choice.seconds, zoom: null })}>{choice.name}</button>
        ))}
      </span>
    </span>
  );
}

/** What there is to say beside the title. */
function said(): string {
  const { seconds, zoom } = view.value;
  if (seconds !== LIVE && !range.value) return rangeProblem.value || "waiting for data";
  const [from, to] = shown.value;
  if (zoom) return `${when(from, to - from)} to ${when(to, to - from)}; Escape or a double click shows all`;
  if (seconds === LIVE) return "";
  if (rangeProblem.value) return `as of ${age((now.value - rangeAt.value) / 1000)} ago`;
  const kept = range.value?.keptSeconds ?? seconds;
  if (seconds > kept) return `kept for ${duration(kept)}: set redis.activityRetention to ${Math.ceil(seconds / 86_400) + 1}d for more`;
  return points.value.some((point) => applied(point) !== null) ? "" : "no complete minute yet";
}

function Marks() {
  const [from, to] = shown.value;
  const all = marks.value;
  const near = pointed.value === null ? undefined : all.find((mark) => Math.abs(mark.at - (pointed.value ?? 0)) < (to - from) / 50);
  const one = near ?? all.at(-1);
  const more = all.length - 1;
  return (
    <div class="marks">
      <p class="note" aria-hidden="true" title={all.map((mark) => `${moment(mark.at * 1000)}: ${mark.words}`).join("\n")}>
        {one ? <><svg viewBox="0 0 10 10" class="shape"><path d={one.rollout ? "M5 0 10 5 5 10 0 5z" : "M0 0h10L5 9z"} /></svg>{when(one.at, to - from)} {one.words}{more > 0 && !near ? `, and ${more} earlier` : ""}</> : "No starts in this time"}
      </p>
      <ul class="unseen" aria-label="Starts of services">
        {all.slice(-20).map((mark) => <li key={mark.at}>{moment(mark.at * 1000)}: {mark.words}</li>)}
      </ul>
    </div>
  );
}

export function Activity() {
  useEffect(watchRange, []);
  const { seconds, zoom } = view.value;
  const live = seconds === LIVE;
  const [from, to] = shown.value;
  const inside = points.value.filter((point) => point.at >= from && point.at <= to);
  const under = pointed.value === null ? null : nearest(inside, pointed.value);
  const name = zoom ? "the chosen time" : `the last ${RANGES.find((choice) => choice.seconds === seconds)?.long ?? ""}`;
  const counts = metrics.value?.eventCounts;
  const isNow = live && !zoom;
  const figure = (of: (point: Point) => number | null): number | null => {
    if (under) return of(under);
    if (!isNow) return mean(inside, of);
    return dim.value ? null : mean(inside.filter((point) => point.at > end.value - 7), of);
  };
  const text = (value: number | null) => (value === null ? NONE : rate(value));
  const what = under ? when(under.at, to - from) : isNow ? "now" : "on average";
  const into = figure((point) => point.incoming);
  return (
    <Panel
      id="activity"
      title="Events per second"
      note={said() || (counts && <span title={KINDS.map((kind) => `${kind}: ${full(counts[`#${kind}`])}`).join(", ")}>all time: {count(metrics.value?.eventsProcessed ?? 0)}</span>)}
      old={live ? dim.value : rangeProblem.value !== "" || !range.value}
      actions={<Ranges />}
    >
      <div
        class="strips"
        tabIndex={0}
        role="group"
        aria-label="Chart. Arrow keys move along it, plus and minus zoom, shift and arrow keys move what is shown, Escape shows all."
        onKeyDown={keys}
        onBlur={() => { pointed.value = null; }}
      >
        {ROWS.map(({ key, name: row, of }, index) => {
          const value = text(figure(of));
          const peak = inside.reduce((peak, point) => Math.max(peak, of(point) ?? 0), 0);
          const both = key === "all";
          return (
            <div class={`row ${key}`} key={key}>
              <p>
                <span class="kind">{both && <svg viewBox="0 0 20 10" class="sample area" aria-hidden="true"><path d="M0 3h20v7H0z" /><path d="M0 3h20" class="line" /></svg>}{row}</span>
                <span class="value">{value}</span>
                {both && <span class="into"><svg viewBox="0 0 20 10" class="sample" aria-hidden="true"><path d="M0 5h20" class="dashed" /></svg>In <b>{text(into)}</b></span>}
                <span class="note">{what}</span>
                <span class="note peak">peak {rate(peak)}</span>
              </p>
              <Strip
                label={`${both ? "Events" : row} applied per second in ${name}: ${value} ${what}, peak ${rate(peak)}${both ? `; coming in: ${text(into)}` : ""}`}
                data={() => {
                  const all = points.value;
                  return { at: all.map((point) => point.at), values: all.map(of), ...(both ? { also: all.map((point) => point.incoming) } : {}) };
                }}
                range={() => shown.value}
                group="activity"
                times={index === ROWS.length - 1}
                marks={() => marks.value}
                cursor={() => pointed.value}
                pointed={(point) => { if (point?.at !== pointed.peek()) pointed.value = point?.at ?? null; }}
                zoomed={(a, b) => look(zoomTo(view.value, a, b, end.value))}
                out={() => look({ ...view.value, zoom: null })}
              />
            </div>
          );
        })}
      </div>
      <Marks />
    </Panel>
  );
}
