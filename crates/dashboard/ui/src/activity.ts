/** The range of time that the chart shows: asked for when it changes, and again while it is looked at. */

import { batch, effect, signal } from "@preact/signals";
import { Refusal, ask } from "./api";
import { type History, LIVE, type View, pathOf } from "./history";
import { link } from "./store";

export const view = signal<View>({ seconds: LIVE, zoom: null });
export const range = signal<History | null>(null);
/** When that came, in ms of the wall clock; 0: never. */
export const rangeAt = signal(0);
/** Why the last answer did not come; empty: it did. */
export const rangeProblem = signal("");

/** How often a range that ends now is asked for anew, in ms. */
const AGAIN = 30_000;

let asked = "";
let askedAt = 0;

async function askRange(path: string): Promise<void> {
  asked = path;
  askedAt = Date.now();
  try {
    const answer = await ask<History>(path);
    if (asked !== path) return;
    batch(() => {
      range.value = answer;
      rangeAt.value = Date.now();
      rangeProblem.value = "";
    });
  } catch (error) {
    if (asked === path) rangeProblem.value = error instanceof Refusal ? error.detail : String(error);
  }
}

/** Begins to ask; returns what ends it. The live range is drawn from what the page has seen, and needs no answer. */
export function watchRange(): () => void {
  const look = (isNew: boolean) => {
    const { seconds, zoom } = view.peek();
    if (seconds === LIVE || document.hidden || link.peek() === "refused") return;
    // A part of the past does not change.
    if (isNew || (!zoom && Date.now() - askedAt >= AGAIN) || rangeProblem.peek()) void askRange(pathOf(view.peek()));
  };
  const stop = effect(() => {
    view.value;
    if (link.value === "open") look(true);
  });
  const timer = setInterval(() => look(false), 5_000);
  return () => {
    stop();
    clearInterval(timer);
  };
}
