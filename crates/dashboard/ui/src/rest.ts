/** A page that nobody sees rests: it gives its live stream back, and asks now and then, so that its tab stays true. */

/** For how long a page is hidden before it rests, in ms: whoever only looks at another tab finds it as it was. */
export const HIDDEN = 30_000;

/** How often a resting page asks, in ms. */
export const ROUND = 30_000;

export interface Sleeper {
  sleep(): void;
  /** Every round while it rests, and once at its beginning. */
  round(): void;
  wake(): void;
}

/** Has a page rest while it is hidden. */
export function restWhenHidden(sleeper: Sleeper): void {
  let due: ReturnType<typeof setTimeout> | undefined;
  let rounds: ReturnType<typeof setInterval> | undefined;
  const changed = () => {
    clearTimeout(due);
    if (document.hidden) {
      if (rounds === undefined) due = setTimeout(rest, HIDDEN);
    } else if (rounds !== undefined) {
      clearInterval(rounds);
      rounds = undefined;
      sleeper.wake();
    }
  };
  const rest = () => {
    rounds = setInterval(() => sleeper.round(), ROUND);
    sleeper.sleep();
    sleeper.round();
  };
  document.addEventListener("visibilitychange", changed);
  changed();
}

/** Has the address be that of the page's base, which a proxy may have been asked for without its last slash. */
export function settleAddress(): void {
  const base = new URL(document.baseURI);
  if (base.origin === location.origin && base.pathname !== location.pathname) history.replaceState(history.state, "", base.pathname + location.search + location.hash);
}
