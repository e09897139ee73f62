/** Figures as a person reads them. The page speaks English, so its numbers do too, wherever the browser is set. */

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

/** The time of day on this machine, to the second. */
export function clock(time: Date | number): string {
  return new Date(time).toLocaleTimeString("en-GB");
}

/** The time of day to the minute. */
export function minute(time: Date | number): string {
  return clock(time).slice(0, 5);
}

/** Day and time, for a title. */
export function moment(time: Date | number): string {
  return new Date(time).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });
}

/** When a stream entry was written, by its id (`milliseconds-number`). */
export function entryTime(id: string): number | null {
  const milliseconds = Number(/^(\d{11,15})-\d+$/.exec(id)?.[1]);
  return Number.isFinite(milliseconds) ? milliseconds : null;
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
