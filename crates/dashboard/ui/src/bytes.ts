/** Sizes as a person reads them. */

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** A size with three digits that say something. */
export function bytes(value: number): string {
  let size = Math.abs(value);
  let unit = 0;
  while (size >= 999.5 && unit < UNITS.length - 1) {
    size /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2;
  return `${value < 0 ? "−" : ""}${size.toFixed(digits)} ${UNITS[unit]}`;
}

/** A change, with its sign. */
export function change(value: number): string {
  return value > 0 ? `+${bytes(value)}` : bytes(value);
}
