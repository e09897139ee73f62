/** A strip of a chart: one series on its own scale, or two. Strips with one cursor stand above each other. */

import { effect } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { ceiling, clock, count, minute } from "./format";
import { type MarkGroup, alone } from "./history";
import { repaint } from "./theme";
import { zone } from "./zone";

export interface Series {
  at: number[];
  values: (number | null)[];
  /** A second series, drawn as a dashed line. */
  also?: (number | null)[];
}

/** Less than this is a click, in pixels. */
const DRAG = 6;

/** A time on the axis, as exact as the range asks for. */
function tick(at: number, seconds: number): string {
  if (seconds <= 180) return clock(at * 1000);
  if (seconds <= 172_800) return minute(at * 1000);
  const time = new Date(at * 1000);
  return minute(time) === "00:00" || seconds > 400_000 ? time.toLocaleDateString("en-GB", { weekday: "short", day: "numeric" }) : minute(time);
}

interface StripProps {
  /** Says what is seen, for those who do not see it. */
  label: string;
  /** Read within an effect: drawn again when a signal in it changes. */
  data: () => Series;
  /** From when until when, in seconds. */
  range: () => [number, number];
  /** Strips of one group show one cursor. */
  group: string;
  /** With the time below. */
  times?: boolean;
  /** Called with the point under the cursor, or null. */
  pointed?: (point: { at: number; index: number } | null) => void;
  /** What is marked on the axis of time. Read within an effect. */
  marks?: () => readonly MarkGroup[];
  /** Where the cursor is put, in seconds. Read within an effect. */
  cursor?: () => number | null;
  /** Called with the part that was dragged over, in seconds. */
  zoomed?: (from: number, to: number) => void;
  /** Called at a double click. */
  out?: () => void;
}

export function Strip({ label, data, range, group, times = false, pointed, marks, cursor, zoomed, out }: StripProps) {
  const box = useRef<HTMLDivElement>(null);
  const live = useRef({ data, range, pointed, marks, cursor, zoomed, out });
  live.current = { data, range, pointed, marks, cursor, zoomed, out };
  useEffect(() => {
    const element = box.current;
    if (!element) return;
    let ink = "";
    let soft = "";
    let grid = "";
    let strong = "";
    // Of a group all are told of a drag; the one that was dragged over answers.
    let pressed = false;
    const colours = () => {
      const style = getComputedStyle(element);
      [ink, soft, grid] = [style.color, style.outlineColor, style.borderTopColor];
      strong = getComputedStyle(document.documentElement).color;
    };
    colours();
    const rem = Number.parseFloat(getComputedStyle(document.documentElement).fontSize);
    const font = `${0.72 * rem}px system-ui, sans-serif`;
    const axis = { font, stroke: () => soft, ticks: { show: false }, gap: 0.3 * rem };
    const plot = new uPlot(
      {
        width: element.clientWidth || 300,
        height: element.clientHeight || 80,
        padding: [0.5 * rem, 1.4 * rem, times ? 0 : 0.35 * rem, 0],
        legend: { show: false },
        // Round hours of the zone in which they are written.
        tzDate: (at) => (zone.peek() === "utc" ? uPlot.tzDate(new Date(at * 1000), "Etc/UTC") : new Date(at * 1000)),
        cursor: { sync: { key: group }, drag: { x: zoomed !== undefined, y: false, setScale: false, dist: DRAG }, y: false, bind: { dblclick: () => () => { live.current.out?.(); return null; } }, points: { size: 0.4 * rem } },
        scales: {
          x: { time: true, range: () => live.current.range() },
          y: { range: (_, __, max) => [0, ceiling(max)] },
        },
        axes: [
          {
            ...axis,
            show: times,
            size: 1.5 * rem,
            space: 4.5 * rem,
            grid: { show: false },
            values: (_, splits) => {
              const [from, to] = live.current.range();
              return splits.map((at) => tick(at, to - from));
            },
          },
          {
            ...axis,
            size: 3 * rem,
            splits: (_, __, ___, max) => [0, max],
            grid: { stroke: () => grid, width: 1 },
            values: (_, splits) => splits.map((value) => (value >= 1e3 ? count(value) : String(value))),
          },
        ],
        series: [
          {},
          {
            stroke: () => ink,
            fill: () => ink.replace(/^rgba?\(([^)]+)\)$/, (_, parts: string) => `rgba(${parts.split(/[ ,/]+/).slice(0, 3).join(",")},.16)`),
            width: Math.max(1, 0.09 * rem),
            points: { show: true, size: 0.25 * rem, fill: () => ink, filter: (plot, index) => alone(plot.data[index] ?? []) },
          },
          { stroke: () => strong, width: Math.max(1, 0.09 * rem), dash: [0.4 * rem, 0.25 * rem], points: { show: true, size: 0.25 * rem, filter: (plot, index) => alone(plot.data[index] ?? []) } },
        ],
        hooks: {
          setSelect: [
            (plot) => {
              const { left, width } = plot.select;
              if (width >= DRAG && pressed) live.current.zoomed?.(plot.posToVal(left, "x"), plot.posToVal(left + width, "x"));
              pressed = false;
              plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
            },
          ],
          draw: [
            (plot) => {
              const found = live.current.marks?.() ?? [];
              const { ctx, bbox } = plot;
              ctx.save();
              ctx.strokeStyle = soft;
              ctx.fillStyle = strong;
              ctx.lineWidth = devicePixelRatio;
              ctx.setLineDash([2 * devicePixelRatio, 2 * devicePixelRatio]);
              const size = 0.3 * rem * devicePixelRatio;
              for (const { at, rollout } of found) {
                const x = Math.round(plot.valToPos(at, "x", true));
                if (x < bbox.left || x > bbox.left + bbox.width) continue;
                ctx.beginPath();
                ctx.moveTo(x, bbox.top);
                ctx.lineTo(x, bbox.top + bbox.height);
                ctx.stroke();
                ctx.beginPath();
                ctx.moveTo(x - size, bbox.top);
                if (rollout) ctx.lineTo(x, bbox.top - size);
                ctx.lineTo(x + size, bbox.top);
                ctx.lineTo(x, bbox.top + 1.6 * size);
                ctx.fill();
              }
              ctx.restore();
            },
          ],
          setCursor: [
            (plot) => {
              // What moves below a cursor that was set by keys says nothing.
              if (!plot.over.matches(":hover")) return;
              const index = plot.cursor.idx;
              const at = index == null ? undefined : plot.data[0][index];
              live.current.pointed?.(index == null || at === undefined ? null : { at, index });
            },
          ],
        },
      },
      [[], [], []],
      element,
    );
    plot.root.setAttribute("aria-hidden", "true");
    plot.over.addEventListener("mousedown", () => { pressed = true; }, true);
    plot.over.addEventListener("mouseleave", () => live.current.pointed?.(null));
    const stop = effect(() => {
      repaint.value;
      zone.value;
      const { at, values, also } = live.current.data();
      live.current.marks?.();
      live.current.range();
      colours();
      plot.setData([at, values, also ?? at.map(() => null)]);
    });
    const point = effect(() => {
      const at = live.current.cursor?.() ?? null;
      if (live.current.cursor && !plot.over.matches(":hover")) plot.setCursor(at === null ? { left: -10, top: -10 } : { left: plot.valToPos(at, "x"), top: 1 }, false);
    });
    const sized = new ResizeObserver(() => plot.setSize({ width: element.clientWidth, height: element.clientHeight }));
    sized.observe(element);
    return () => {
      sized.disconnect();
      stop();
      point();
      plot.destroy();
    };
  }, [group, times]);
  return <div class={`strip${times ? " times" : ""}`} ref={box} role="img" aria-label={label} />;
}
