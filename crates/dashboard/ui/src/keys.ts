/** What single keys do. */

import { signal } from "@preact/signals";
import { locked, pause, paused, refresh } from "./store";

const KEPT = "keys";

/** Whether the list of keys is open. */
export const listed = signal(false);
/** Whether single keys do anything: those who speak to their machine, or type with tremors, turn them off. */
export const enabled = signal(kept());

/** Each key with what it does, as the list says it. */
export const KEYS: readonly { key: string; does: string; act: () => void }[] = [
  { key: "/", does: "Go to the filter of the live events", act: toFilter },
  { key: "w", does: "Go to the field that looks up an account or a post", act: toLookup },
  { key: "p", does: "Pause the live events, or resume them", act: () => pause(!paused.value) },
  { key: "r", does: "Refresh: reconnect the page and ask for everything again", act: refresh },
  { key: "?", does: "Show this list", act: openKeys },
];

export function openKeys(): void {
  listed.value = true;
}

export function enable(on: boolean): void {
  enabled.value = on;
  try {
    if (on) localStorage.removeItem(KEPT);
    else localStorage.setItem(KEPT, "off");
  } catch {
    // Without storage the choice holds as long as the page.
  }
}

export function watchKeys(): void {
  addEventListener("keydown", (event) => {
    if (!enabled.value || locked.value || event.defaultPrevented || event.repeat || event.isComposing) return;
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target) || document.querySelector("dialog[open]")) return;
    const pressed = KEYS.find(({ key }) => key === event.key);
    if (!pressed) return;
    event.preventDefault();
    pressed.act();
  });
}

/** Says whether a key that is pressed there is text, or chooses an entry of a list. */
function isTyping(target: EventTarget | null): boolean {
  if (!(target instanceof HTMLElement)) return false;
  return target.isContentEditable || target.matches("textarea, select, input:not([type=checkbox], [type=radio], [type=button], [type=submit])");
}

function toFilter(): void {
  const field = document.querySelector<HTMLElement>(".events input:not([type=checkbox])");
  field?.focus({ preventScroll: true });
  field?.scrollIntoView({ block: "center" });
}

function toLookup(): void {
  const field = document.querySelector<HTMLElement>(".repo input");
  field?.focus({ preventScroll: true });
  field?.scrollIntoView({ block: "center" });
}

function kept(): boolean {
  try {
    return localStorage.getItem(KEPT) !== "off";
  } catch {
    return true;
  }
}
