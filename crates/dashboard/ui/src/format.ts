/** Figures as a person reads them. The page speaks English, so its numbers do too, wherever the browser is set. */

import { type Zone, zone } from "./zone";

const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", { notation: "compact", minimumFractionDigits: 2, maximumFractionDigits: 2 });

/** What stands where nothing is known. */
export const NONE = "–";

/** Every digit, in groups of three: what a title holds. */
export function full(value: number): string {
  return grouped.format(value);
}

/** All digits below `most`; above that four or five of them, such as `12.35M`. */
export function count(value: number, most = 1e7): string {
  return Math.abs(value) < most ? grouped.format(value) : compact.format(value);
}

/** A rate: one decimal below ten, and never `0` for something that is not. */
export function rate(value: number): string {
  if (value <= 0) return "0";
  if (value < 0.05) return "< 0.1";
  return value < 9.95 ? value.toFixed(1) : count(Math.round(value));
}

/** A share in percent. */
export function percent(value: number): string {
  if (value <= 0) return "0%";
  if (value < 0.01) return "< 0.01%";
  return value < 9.995 ? `${value.toFixed(2)}%` : `${Math.round(value)}%`;
}

/** How long, in the two coarsest units that say something. */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) return NONE;
  const s = Math.max(0, seconds);
  if (s < 9.95) return `${s.toFixed(1)} s`;
  if (s < 119.5) return `${Math.round(s)} s`;
  const minutes = Math.round(s / 60);
  if (minutes < 120) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${String(minutes % 60).padStart(2, "0")} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** How old, in whole seconds: an age that is drawn each second needs no tenths. */
export function age(seconds: number): string {
  return seconds < 9.95 ? `${Math.max(0, Math.floor(seconds))} s` : duration(seconds);
}

type Formats = Record<"time" | "moment", Intl.DateTimeFormat>;

function formats(timeZone?: string): Formats {
  const of = (options: Intl.DateTimeFormatOptions) => new Intl.DateTimeFormat("en-GB", { ...options, ...(timeZone ? { timeZone } : {}) });
  return { time: of({ timeStyle: "medium" }), moment: of({ dateStyle: "medium", timeStyle: "medium" }) };
}

const FORMATS: Record<Zone, Formats> = { utc: formats("UTC"), local: formats() };
const NAMED = ["en-GB", "en-US"].map((place) => new Intl.DateTimeFormat(place, { timeZoneName: "short" }));

/** The time of day to the second, in the zone that was chosen. */
export function clock(time: Date | number): string {
  return known(time) ? FORMATS[zone.value].time.format(time) : NONE;
}

/** The time of day to the minute. */
export function minute(time: Date | number): string {
  return known(time) ? clock(time).slice(0, 5) : NONE;
}

/** Day, time and zone, for a title. */
export function moment(time: Date | number): string {
  return known(time) ? `${FORMATS[zone.value].moment.format(time)} ${zoneName(time)}` : NONE;
}

/** The time of day with its zone, where it stands by itself. */
export function clockWithZone(time: Date | number): string {
  return known(time) ? `${clock(time)} ${zoneName(time)}` : NONE;
}

/** The zone that was chosen: `UTC`, `CEST`, or `+09:00` where it has no short name. Summer time has another one. */
export function zoneName(time: Date | number): string {
  if (zone.value === "utc" || !known(time)) return "UTC";
  for (const named of NAMED) {
    const name = named.formatToParts(time).find(({ type }) => type === "timeZoneName")?.value ?? "";
    if (/^[A-Z]{3,5}$/.test(name)) return name;
  }
  return offset(-new Date(time).getTimezoneOffset());
}

/** An offset from UTC, by minutes. */
export function offset(minutes: number): string {
  const [hours, rest] = [Math.floor(Math.abs(minutes) / 60), Math.abs(minutes) % 60];
  return `${minutes < 0 ? "−" : "+"}${[hours, rest].map((part) => String(part).padStart(2, "0")).join(":")}`;
}

/** When a time of day in UTC (`14:03:22`) was, or will be: whichever is nearest. */
export function nearest(ofDay: string, to: number): number {
  const [hours, minutes, seconds] = (/^(\d\d):(\d\d):(\d\d)/.exec(ofDay) ?? []).slice(1).map(Number);
  if (hours === undefined || minutes === undefined || seconds === undefined) return Number.NaN;
  const day = 86_400_000;
  const today = Math.floor(to / day) * day + ((hours * 60 + minutes) * 60 + seconds) * 1000;
  return today + Math.round((to - today) / day) * day;
}

function known(time: Date | number): boolean {
  return Number.isFinite(Number(time));
}

/** The host of an address; what is no address stays as it is. */
export function host(url: string): string {
  return /^[a-z]+:\/\/(?:[^@/]*@)?([^/?#]+)/i.exec(url)?.[1] ?? url;
}

/** `one letter`, `2 letters`. */
export function several(number: number, one: string, many = `${one}s`): string {
  return `${full(number)} ${number === 1 ? one : many}`;
}

/** Names without what all of them begin with: of pods only the end differs, and that is what a narrow column cuts. */
export function distinct(names: readonly string[]): string[] {
  const [first = "", ...others] = names;
  let length = others.length === 0 ? 0 : first.length;
  for (const name of others) while (!name.startsWith(first.slice(0, length))) length -= 1;
  // Whole parts only.
  length = first.lastIndexOf("-", length - 1) + 1;
  return length < 4 ? [...names] : names.map((name) => `…${name.slice(length - 1)}`);
}

/** The least of 1, 2, 2.5 and 5 times a power of ten that is not below the value: the top of an axis. */
export function ceiling(value: number): number {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  const step = [1, 2, 2.5, 5, 10].find((step) => step * power >= value * 0.9999) ?? 10;
  return step * power;
}
