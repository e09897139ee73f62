/** A strip of a chart: one series on its own scale. Strips with one cursor stand above each other. */

import { effect } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { ceiling, count, minute } from "./format";
import { repaint } from "./theme";

export interface Series {
  at: number[];
  values: (number | null)[];
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
}

export function Strip({ label, data, range, group, times = false, pointed }: StripProps) {
  const box = useRef<HTMLDivElement>(null);
  const live = useRef({ data, range, pointed });
  live.current = { data, range, pointed };
  useEffect(() => {
    const element = box.current;
    if (!element) return;
    let ink = "";
    let soft = "";
    let grid = "";
    const colours = () => {
      const style = getComputedStyle(element);
      [ink, soft, grid] = [style.color, style.outlineColor, style.borderTopColor];
    };
    colours();
    const rem = Number.parseFloat(getComputedStyle(document.documentElement).fontSize);
    const font = `${0.72 * rem}px system-ui, sans-serif`;
    const axis = { font, stroke: () => soft, ticks: { show: false }, gap: 0.3 * rem };
    const plot = new uPlot(
      {
        width: element.clientWidth || 300,
        height: element.clientHeight || 80,
        padding: [0.5 * rem, 0.5 * rem, times ? 0 : 0.35 * rem, 0],
        legend: { show: false },
        cursor: { sync: { key: group }, drag: { x: false, y: false }, y: false, points: { size: 0.4 * rem } },
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
            values: (_, splits) => splits.map((at) => minute(at * 1000)),
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
            points: { show: false },
          },
        ],
        hooks: {
          setCursor: [
            (plot) => {
              const index = plot.cursor.idx;
              const at = index == null ? undefined : plot.data[0][index];
              live.current.pointed?.(index == null || at === undefined ? null : { at, index });
            },
          ],
        },
      },
      [[], []],
      element,
    );
    plot.root.setAttribute("aria-hidden", "true");
    const stop = effect(() => {
      repaint.value;
      const { at, values } = live.current.data();
      colours();
      plot.setData([at, values]);
    });
    const sized = new ResizeObserver(() => plot.setSize({ width: element.clientWidth, height: element.clientHeight }));
    sized.observe(element);
    return () => {
      sized.disconnect();
      stop();
      plot.destroy();
    };
  }, [group, times]);
  return <div class={`strip${times ? " times" : ""}`} ref={box} role="img" aria-label={label} />;
}
