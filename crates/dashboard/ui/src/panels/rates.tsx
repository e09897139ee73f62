/** Events a second by kind: each kind in a strip of its own, because commits dwarf the others. */

import { signal } from "@preact/signals";
import { Strip } from "../chart";
import { NONE, clock, count, full, minute, rate } from "../format";
import { Panel, ageOf } from "../parts";
import { KINDS, type Kind, type Point, extent } from "../rates";
import { WINDOW, dayPoints, dim, history, metrics, rates, version } from "../store";

const NAMES: Record<Kind, string> = { commit: "Commits", identity: "Identities", account: "Accounts" };
const DAY = 86_400;

type Pointed = { at: number; index: number } | null;
const pointed = { live: signal<Pointed>(null), day: signal<Pointed>(null) };

interface StripsProps {
  group: "live" | "day";
  points: () => Point[];
  range: () => [number, number];
  span: string;
  /** The figure beside a strip while nothing is pointed at. */
  figure: (kind: Kind) => number | null;
  what: string;
}

function Strips({ group, points, range, span, figure, what }: StripsProps) {
  const under = pointed[group].value;
  return (
    <div class="strips">
      {KINDS.map((kind, index) => {
        const { peak } = extent(points(), kind);
        const value = under ? (points()[under.index]?.[kind] ?? null) : figure(kind);
        const shown = value === null ? NONE : rate(value);
        return (
          <div class={`row ${kind}`} key={kind}>
            <p>
              <span class="kind">{NAMES[kind]}</span>
              <span class="value">{shown}</span>
              <span class="note">{under ? (group === "live" ? clock(under.at * 1000) : minute(under.at * 1000)) : what}</span>
              <span class="note peak">peak {rate(peak)}</span>
            </p>
            <Strip
              label={`${NAMES[kind]} a second, ${span}: ${shown} ${what}, peak ${rate(peak)}`}
              data={() => {
                const all = points();
                return { at: all.map((point) => point.at), values: all.map((point) => point[kind]) };
              }}
              range={range}
              group={group}
              times={index === KINDS.length - 1}
              pointed={(point) => {
                if (point?.index !== pointed[group].peek()?.index) pointed[group].value = point;
              }}
            />
          </div>
        );
      })}
    </div>
  );
}

export function LiveRates() {
  version.value;
  const live = () => (version.value, rates.points);
  return (
    <Panel id="live-rates" title="Events a second, last 10 minutes" old={dim.value}>
      <Strips
        group="live"
        points={live}
        range={() => {
          // While figures come, their clock; while none come, the curve stands where it ended.
          const end = rates.points.at(-1)?.at ?? Date.now() / 1000;
          return [end - WINDOW, end];
        }}
        span="last 10 minutes"
        figure={(kind) => (dim.value ? null : rates.now(kind))}
        what="now"
      />
    </Panel>
  );
}

export function DayRates() {
  const { old, note } = ageOf(history, 60);
  const points = dayPoints.value;
  const counts = metrics.value?.eventCounts;
  const hours = points.length > 1 ? ((points.at(-1)?.at ?? 0) - (points[0]?.at ?? 0)) / 3600 : 0;
  const since = points.length === 0 && history.at.value > 0 ? "no whole minute with events yet" : hours < 23.5 && points.length > 0 ? `since ${minute((points[0]?.at ?? 0) * 1000)}` : "";
  return (
    <Panel
      id="day-rates"
      title="24 hours, by the minute"
      note={note || since}
      old={old}
      actions={counts && <span class="note totals" title={KINDS.map((kind) => `${NAMES[kind]}: ${full(counts[`#${kind}`])}`).join(", ")}>
        all time: {KINDS.map((kind) => `${count(counts[`#${kind}`])} ${NAMES[kind].toLowerCase()}`).join(", ")}
      </span>}
    >
      <Strips
        group="day"
        points={() => dayPoints.value}
        range={() => {
          const end = dayPoints.value.at(-1)?.at ?? Date.now() / 1000;
          return [end - DAY, end];
        }}
        span="last 24 hours"
        figure={(kind) => mean(points, kind)}
        what="on average"
      />
    </Panel>
  );
}

function mean(points: readonly Point[], kind: Kind): number | null {
  if (points.length === 0) return null;
  return points.reduce((sum, point) => sum + (point[kind] ?? 0), 0) / points.length;
}
