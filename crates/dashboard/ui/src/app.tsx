/** The page as a whole. */

import { effect } from "@preact/signals";
import type { About } from "./api";
import { age, clock, clockWithZone } from "./format";
import { Buffer } from "./panels/buffer";
import { Activity } from "./panels/activity";
import { Machine, Relay, Workers } from "./panels/details";
import { Events } from "./panels/events";
import { Keys } from "./panels/keys";
import { Letters } from "./panels/letters";
import { Pipeline, Readouts } from "./panels/pipeline";
import { Plate } from "./panels/plate";
import { Redis } from "./panels/redis";
import { Repo } from "./panels/repo";
import { Gate, SignIn } from "./panels/session";
import { Tables } from "./panels/tables";
import { Glyph } from "./parts";
import { about, ageSeconds, judged, locked, now, said, seen, settled, stale } from "./store";
import { type Tone, title } from "./verdict";

/** For those who hear the page. */
const SPOKEN: Record<Tone, string> = { good: "OK", warn: "Warning", bad: "Trouble", idle: "OK", unknown: "Unknown" };

/** How things stand, and since when; always in sight. */
function Status() {
  const { tone, headline, why } = judged.value;
  const seconds = ageSeconds.value;
  return (
    <header class={`top ${tone}`}>
      <div class="verdict">
        <p class="headline"><Glyph tone={tone} />{headline}</p>
        <p class="why" title={why}>{why}</p>
      </div>
      {!locked.value && (
        <p class="age">
          <span class="clock">{clockWithZone(now.value)}</span>
          <span>{seconds === null ? "no metrics yet" : stale.value ? `metrics from ${clock(seen.value.wall)}` : `last update ${age(seconds)} ago`}</span>
        </p>
      )}
      {/* Only the headline is spoken, without its figures: an age that counts would never be silent. */}
      <Announcer />
    </header>
  );
}

function Announcer() {
  const { tone, short } = judged.value;
  return <p class="unseen" role="status">{SPOKEN[tone]}: {short}</p>;
}

export function App() {
  return (
    <>
      <a class="skip" href="#events-start" hidden={locked.value}>Skip to the live events</a>
      <Plate />
      <Status />
      <p class="said" role="status">{said.value}{said.value && <button type="button" aria-label="Dismiss" onClick={() => { said.value = ""; }}>×</button>}</p>
      {locked.value && <Gate />}
      {settled.value && !locked.value && (
        <main>
          <Pipeline />
          <Readouts />
          <Activity />
          <Tables />
          <div class="details"><Redis /><Workers /><Relay /><Machine /></div>
          <div id="events-start" tabIndex={-1} />
          <Events />
          <Letters />
          <Buffer />
          <Repo />
        </main>
      )}
      {!locked.value && <><SignIn /><Keys /></>}
    </>
  );
}

/** Of several tabs each says whose it is. */
function named(words: string, own: About | null): string {
  if (!own || (own.namespace === null && own.pipeline === "default")) return words;
  return words.replace(/Penstock$/, () => [own.namespace, own.pipeline].filter(Boolean).join("/"));
}

const ICONS: Record<Tone, string> = {
  good: "<circle cx='8' cy='8' r='7' fill='#1c6fb8'/>",
  warn: "<path d='M8 1l8 14H0z' fill='#c98a00'/>",
  bad: "<path d='M1 1h14v14H1z' fill='#d0342c'/>",
  idle: "<circle cx='8' cy='8' r='5.5' fill='none' stroke='#7a8a85' stroke-width='3'/>",
  unknown: "<circle cx='8' cy='8' r='5.5' fill='none' stroke='#7a8a85' stroke-width='3' stroke-dasharray='3'/>",
};

/** Has the tab say how things stand: its title and its icon. */
export function watchTab(): void {
  const icon = document.querySelector<HTMLLinkElement>("link[rel=icon]");
  effect(() => {
    const { tone } = judged.value;
    const words = named(title(judged.value), about.value.value);
    if (document.title !== words) document.title = words;
    const href = `data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'>${ICONS[tone]}</svg>`.replaceAll("#", "%23");
    if (icon && icon.href !== href) icon.href = href;
  });
}
