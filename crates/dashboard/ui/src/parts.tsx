/** Small pieces that all panels are made of. */

import type { ComponentChildren } from "preact";
import type { Polled } from "./api";
import { NONE, age, count, full } from "./format";
import { dim, now } from "./store";
import type { Tone } from "./verdict";

const SHAPES: Record<Tone, ComponentChildren> = {
  good: <circle cx="8" cy="8" r="6" />,
  warn: <path d="M8 1.5 15.2 14H.8z" />,
  bad: <path d="M2 2h12v12H2z" />,
  idle: <circle cx="8" cy="8" r="5" class="hollow" />,
  unknown: <path d="M3 8h2.4M6.8 8h2.4M10.6 8H13" class="hollow" />,
};

const MARKS: Partial<Record<Tone, ComponentChildren>> = {
  warn: <path d="M8 6v4m0 1.6v1" class="mark" />,
  bad: <path d="m5 5 6 6m0-6-6 6" class="mark" />,
};

/** A state as a shape: a disc, a triangle, a square, a ring, a dashed line. The word stands beside it. */
export function Glyph({ tone }: { tone: Tone }) {
  return <svg class={`glyph ${tone}`} viewBox="0 0 16 16" aria-hidden="true">{SHAPES[tone]}{MARKS[tone]}</svg>;
}

/** A number, with every digit in its title; shortened from `most` on. */
export function Count({ value, most }: { value: number | null | undefined; most?: number }) {
  return value == null ? <>{NONE}</> : <span title={full(value)}>{count(value, most)}</span>;
}

interface PanelProps {
  id: string;
  title: string;
  /** Beside the title. */
  note?: ComponentChildren;
  actions?: ComponentChildren;
  /** Grey: what it shows is not of now. */
  old?: boolean;
  children: ComponentChildren;
}

export function Panel({ id, title, note, actions, old, children }: PanelProps) {
  return (
    <section class={`panel ${id}${old ? " old" : ""}`} aria-labelledby={`h-${id}`}>
      <header class="bar">
        <h2 id={`h-${id}`}>{title}</h2>
        <span class="note">{note}</span>
        {actions}
      </header>
      {children}
    </section>
  );
}

/** Says how old a panel is that is asked for by itself, once it missed two answers. */
export function ageOf(polled: Polled<unknown>, every: number): { old: boolean; note: string } {
  const seconds = (now.value - polled.at.value) / 1000;
  const old = polled.at.value === 0 || seconds > 2.5 * every || (polled.problem.value !== "" && dim.value);
  if (polled.at.value === 0) return { old, note: polled.problem.value };
  return { old, note: seconds > 2.5 * every ? `as of ${age(seconds)} ago` : "" };
}
