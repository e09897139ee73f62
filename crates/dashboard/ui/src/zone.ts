/** In which zone the page tells the time: UTC, as logs do, or as the clock on this machine. */

import { signal } from "@preact/signals";

export type Zone = "utc" | "local";

const KEPT = "zone";

export const zone = signal<Zone>(kept());

export function nextZone(): void {
  zone.value = zone.value === "utc" ? "local" : "utc";
  try {
    localStorage.setItem(KEPT, zone.value);
  } catch {
    // Without storage the choice holds as long as the page.
  }
}

function kept(): Zone {
  try {
    return localStorage.getItem(KEPT) === "local" ? "local" : "utc";
  } catch {
    return "utc";
  }
}
