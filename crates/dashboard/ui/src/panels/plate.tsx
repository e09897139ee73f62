/** The name plate: whose page it is, where more is to be found, as whom it is looked at. */

import { NONE, host } from "../format";
import { openKeys } from "../keys";
import { about, asked, locked, metrics, session, signOut } from "../store";
import { nextTheme, theme } from "../theme";
import { nextZone, zone } from "../zone";
import "./plate.css";

export function Plate() {
  const own = about.value.value;
  const relay = metrics.value?.firehoseStatus.url ?? "";
  return (
    <section class="plate" aria-label="This dashboard">
      <h1>Penstock</h1>
      {!locked.value && (
        <>
          <dl>
            <div><dt>Pipeline</dt><dd>{own?.pipeline ?? NONE}</dd></div>
            {own?.namespace && <div><dt>Namespace</dt><dd>{own.namespace}</dd></div>}
            <div><dt>Relay</dt><dd title={relay}>{host(relay) || NONE}</dd></div>
            <div><dt>Version</dt><dd>{own?.version ?? NONE}</dd></div>
          </dl>
          <nav aria-label="More about this pipeline">
            {own && <a href={own.documentation} target="_blank" rel="noreferrer">Docs</a>}
            <a href="api/openapi.json">API</a>
            <a href="api/metrics">Metrics</a>
          </nav>
        </>
      )}
      <Who />
      <p class="buttons">
        {!locked.value && <button type="button" onClick={nextZone}>Time: {zone.value === "utc" ? "UTC" : "local"}</button>}
        <button type="button" onClick={nextTheme}>Theme: {theme.value === "system" ? "auto" : theme.value}</button>
        {!locked.value && <button type="button" onClick={openKeys}>Keys</button>}
      </p>
    </section>
  );
}

/** As whom the page is looked at, and how to be somebody else. */
function Who() {
  const who = session.value.value;
  if (!who || locked.value) return null;
  const role = who.signedIn === "admin" ? "Signed in as admin" : who.signedIn === "reader" ? "Signed in, read only" : who.admin ? "Admin" : "Read only";
  return (
    <p class="who buttons">
      <span>{role}</span>
      {who.tokens && !who.admin && <button type="button" onClick={() => { asked.value = { detail: "", again: null }; }}>{who.signedIn ? "Sign in as admin" : "Sign in"}</button>}
      {who.signedIn && <button type="button" onClick={() => void signOut()}>Sign out</button>}
    </p>
  );
}
