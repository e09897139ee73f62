/** The page as a whole. */

import { effect } from "@preact/signals";
import { age, clock } from "./format";
import { Buffer } from "./panels/buffer";
import { Machine, Relay, Tables, Workers } from "./panels/details";
import { Events } from "./panels/events";
import { Letters } from "./panels/letters";
import { Pipeline, Readouts } from "./panels/pipeline";
import { DayRates, LiveRates } from "./panels/rates";
import { Session } from "./panels/session";
import { Glyph } from "./parts";
import { ageSeconds, asked, judged, said, seen, settled, stale } from "./store";
import { nextTheme, theme } from "./theme";
import type { Tone } from "./verdict";

/** For those who hear the page. */
const SPOKEN: Record<Tone, string> = { good: "In order", warn: "Warning", bad: "Trouble", idle: "In order", unknown: "Not known" };

function Header() {
  const { tone, headline, why } = judged.value;
  const seconds = ageSeconds.value;
  return (
    <header class={`top ${tone}`}>
      <h1>Penstock</h1>
      <div class="verdict">
        <p class="headline"><Glyph tone={tone} />{headline}</p>
        <p class="why">{why}</p>
      </div>
      <p class="age">{seconds === null ? "no figures yet" : stale.value ? `figures of ${clock(seen.value.wall)}` : `last update ${age(seconds)} ago`}</p>
      <p class="buttons">
        <button type="button" onClick={() => { asked.value = { detail: "", again: null }; }}>Sign in</button>
        <button type="button" onClick={nextTheme} >Theme: {theme.value === "system" ? "auto" : theme.value}</button>
      </p>
      {/* Only the headline is spoken, and only when the tone changes: an age that counts would never be silent. */}
      <Announcer />
    </header>
  );
}

function Announcer() {
  const { tone, headline } = judged.value;
  const words = stale.value ? "Stale figures" : headline;
  return <p class="unseen" role="status">{SPOKEN[tone]}: {tone === "warn" ? words.replace(/[\d.].*$/, "").trim() : words}</p>;
}

export function App() {
  return (
    <>
      <a class="skip" href="#events-start">Skip to the live events</a>
      <Header />
      <p class="said" role="status">{said.value}{said.value && <button type="button" aria-label="Dismiss" onClick={() => { said.value = ""; }}>×</button>}</p>
      {settled.value && (
        <main>
          <Pipeline />
          <Readouts />
          <LiveRates />
          <DayRates />
          <div class="details"><Tables /><Workers /><Relay /><Machine /></div>
          <div id="events-start" tabIndex={-1} />
          <Events />
          <Letters />
          <Buffer />
        </main>
      )}
      <Session />
    </>
  );
}

const ICONS: Record<Tone, string> = {
  good: "<circle cx='8' cy='8' r='7' fill='#1c6fb8'/>",
  warn: "<path d='M8 1l8 14H0z' fill='#c98a00'/>",
  bad: "<path d='M1 1h14v14H1z' fill='#d0342c'/>",
  idle: "<circle cx='8' cy='8' r='5.5' fill='none' stroke='#7a8a85' stroke-width='3'/>",
  unknown: "<circle cx='8' cy='8' r='5.5' fill='none' stroke='#7a8a85' stroke-width='3' stroke-dasharray='3'/>",
};
const SIGNS: Record<Tone, string> = { good: "", warn: "▲ ", bad: "■ ", idle: "", unknown: "" };

/** Has the tab say how things stand: its title and its icon. */
export function watchTab(): void {
  const icon = document.querySelector<HTMLLinkElement>("link[rel=icon]");
  effect(() => {
    const { tone, headline } = judged.value;
    const title = tone === "good" || tone === "idle" ? "Penstock" : `${SIGNS[tone]}${stale.value ? "Stale" : headline} · Penstock`;
    if (document.title !== title) document.title = title;
    const href = `data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'>${ICONS[tone]}</svg>`.replaceAll("#", "%23");
    if (icon && icon.href !== href) icon.href = href;
  });
}
