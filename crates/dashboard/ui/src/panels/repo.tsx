/** Looks up an account or a record: where it stands, or why it does not. */

import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { Refusal, ask } from "../api";
import { Foreign } from "../bidi";
import { Copy } from "../copy";
import { count, moment } from "../format";
import { type RepoReport, addressOf, askedIn, hashOf, pathOf, toneOf } from "../lookup";
import { Glyph, Panel } from "../parts";
import "./repo.css";

/** What was asked for last, as it was written. */
const asked = signal("");
const report = signal<RepoReport | null>(null);
const problem = signal("");
const asking = signal(false);

/** Asks for what the address names; an address without it shows nothing. */
async function lookUp(text: string): Promise<void> {
  asked.value = text;
  report.value = null;
  problem.value = "";
  if (!text) return;
  asking.value = true;
  try {
    const answer = await ask<RepoReport>(pathOf(text));
    if (asked.peek() === text) report.value = answer;
  } catch (error) {
    if (asked.peek() === text) problem.value = error instanceof Refusal ? error.detail : String(error);
  } finally {
    if (asked.peek() === text) asking.value = false;
  }
}

function Row({ name, children }: { name: string; children: preact.ComponentChildren }) {
  return <div><dt>{name}</dt><dd>{children}</dd></div>;
}

function At({ ms }: { ms: number | null }) {
  return ms === null ? null : <> <span class="soft">{moment(ms)}</span></>;
}

/** A rev, and when its commit was made. */
function Rev({ rev, at }: { rev: string | null; at: number | null }) {
  return rev === null ? <>not known</> : <><span class="mono">{rev}</span><At ms={at} /></>;
}

function Host({ of }: { of: RepoReport }) {
  const host = of.host.found;
  if (!host) return <p class="note">Not asked: {of.host.unknown}</p>;
  return (
    <dl class="rows">
      <Row name="Host"><Foreign text={host.host ?? "none in the account's document"} /></Row>
      {host.error ? <Row name="Answer"><Foreign text={host.error} /></Row> : <Row name="Account">{host.active === false ? `not active: ${host.status ?? "no reason told"}` : "active"}</Row>}
      {!host.error && <Row name="Last commit"><Rev rev={host.rev} at={host.revAt} /></Row>}
      {host.handle && <Row name="Handle"><Foreign text={host.handle} />{host.handleValid === false && <span class="warn"> does not lead back</span>}{host.handleValid === null && " not checked"}</Row>}
      {host.record && <Row name="Record">{host.record.exists ? <>there{host.record.cid && <span class="mono soft"> {host.record.cid}</span>}</> : "not there"}</Row>}
      {host.recordError && <Row name="Record"><Foreign text={host.recordError} /></Row>}
    </dl>
  );
}

function Held({ of }: { of: RepoReport }) {
  const held = of.held.found;
  if (!held) return <p class="note">Not asked: {of.held.unknown}</p>;
  const { repo, record, repair, claim } = held;
  return (
    <dl class="rows">
      {record?.row && <Row name="Row in">{record.row.table}<At ms={record.row.entryAt ?? record.row.indexedAt} /></Row>}
      {record?.wide && <Row name="Row in">{record.wide.table}<At ms={record.wide.entryAt} /></Row>}
      {record?.shadow && <Row name="Waits for a place in">{record.shadow.table}</Row>}
      {record?.tombstone && <Row name="Deleted"><At ms={record.tombstone.entryAt ?? record.tombstone.revAt} /></Row>}
      {record && !record.row && !record.wide && !record.shadow && !record.tombstone && <Row name="Record">no row, no delete</Row>}
      {repo ? <Row name="Last commit"><Rev rev={repo.rev} at={repo.revAt} /></Row> : <Row name="Account">no event of it was ever applied</Row>}
      {repo && <Row name="Account">{repo.active === null ? "no account event came" : repo.active ? "active" : `not active: ${repo.status ?? "no reason told"}`}{repo.optedOut && ", opted out"}</Row>}
      {repo?.handle && <Row name="Handle"><Foreign text={repo.handle} /></Row>}
      {repo?.sync && <Row name="Desynchronized"><span class="warn">{repo.sync}</span><At ms={repo.syncAt} /></Row>}
      {claim && <Row name="Said to be">{claim.status ?? "gone"}<At ms={claim.since} /></Row>}
      {repair && <Row name="Listed for repair">{repair.reason}{repair.running && ", running"}{repair.attempts > 0 && `, failed ${repair.attempts} times`}<At ms={repair.since} /></Row>}
      {!of.uri && held.collections.map((counted) => (
        <Row key={`${counted.collection} ${counted.table}`} name={counted.collection}>{count(counted.rows)}{counted.more && " or more"} <span class="soft">in {counted.table}</span></Row>
      ))}
    </dl>
  );
}

function Between({ of }: { of: RepoReport }) {
  const waiting = of.waiting.found;
  const { letters, more, redisUnknown, postgresUnknown } = of.letters;
  return (
    <>
      <dl class="rows">
        {!waiting && <Row name="Stream">not asked: {of.waiting.unknown}</Row>}
        {waiting && <Row name="Waiting in the stream">{waiting.entries.length === 0 ? "nothing" : count(waiting.entries.length)} <span class="soft">of {count(waiting.searched)} entries{waiting.complete ? "" : ", not all looked through"}</span></Row>}
        {waiting?.entries.slice(0, 5).map((entry) => <Row key={entry.stream + entry.id} name={entry.type}><span class="mono">{entry.id}</span> <span class="soft">{entry.delivered ? "in a worker's hands" : "not read yet"}</span></Row>)}
        <Row name="Dead letters">{letters.length === 0 ? "none" : `${count(letters.length)}${more ? " or more" : ""}`}</Row>
        {redisUnknown && <Row name="Those in Redis">not known</Row>}
        {postgresUnknown && <Row name="Those in PostgreSQL">not known</Row>}
      </dl>
      <ul class="found">
        {letters.slice(0, 5).map((letter) => <li key={letter.source + letter.id}><span class="soft">{moment(letter.at)}</span> <Foreign text={letter.error} /></li>)}
      </ul>
    </>
  );
}

function Answer({ of }: { of: RepoReport }) {
  const name = of.uri ?? of.did ?? of.asked;
  return (
    <>
      <p class="name mono"><Foreign text={name} /> <Copy text={name} what="name" /></p>
      <p class="answered"><Glyph tone={toneOf(of.answer.good)} /><Foreign text={of.answer.text} /></p>
      {of.answer.advice.map((advice) => (
        <p key={advice} class="advice">{advice.startsWith("penstock ") ? <><code>{advice}</code> <Copy text={advice} what="command" /></> : advice}</p>
      ))}
      {of.did && (
        <div class="sides">
          <section aria-labelledby="h-repo-host"><h3 id="h-repo-host">At its host</h3><Host of={of} /></section>
          <section aria-labelledby="h-repo-held"><h3 id="h-repo-held">Held here</h3><Held of={of} /></section>
          <section aria-labelledby="h-repo-between"><h3 id="h-repo-between">In between</h3><Between of={of} /></section>
        </div>
      )}
    </>
  );
}

export function Repo() {
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => {
    const follow = () => {
      const text = askedIn(location.hash);
      // Another fragment, such as the one for signing in, is none of ours.
      if (text === null) return;
      if (field.current && document.activeElement !== field.current) field.current.value = text;
      void lookUp(text);
    };
    follow();
    if (askedIn(location.hash)) field.current?.scrollIntoView({ block: "center" });
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  const submit = () => {
    const text = addressOf(field.current?.value ?? "");
    const hash = hashOf(text);
    if (location.hash === hash) void lookUp(text);
    else location.hash = hash;
  };
  const clear = () => {
    if (field.current) field.current.value = "";
    history.pushState(null, "", location.pathname + location.search);
    void lookUp("");
    field.current?.focus();
  };
  const found = report.value;
  return (
    <Panel id="repo" title="Why is it not there?" note={asked.value ? "" : "what is held of an account or a post, and what its host has"}>
      <form class="controls" role="search" aria-label="Look up an account or a post" onSubmit={(event) => { event.preventDefault(); submit(); }}>
        <label>
          <span class="unseen">DID, handle, AT-URI or bsky.app address</span>
          <input ref={field} type="text" placeholder="DID, handle, AT-URI or bsky.app address" required spellcheck={false} autocomplete="off" autocapitalize="none" enterkeyhint="search" />
        </label>
        <button type="submit" class="primary">Look up</button>
        <button type="button" disabled={!asked.value} onClick={clear}>Clear</button>
      </form>
      <div role="status" aria-busy={asking.value}>
        {asking.value && <p class="note">Asking …</p>}
        {problem.value && <p class="answered"><Glyph tone="unknown" />{problem.value}</p>}
        {found && <p class="unseen">{found.answer.text}</p>}
      </div>
      {found && <Answer of={found} />}
    </Panel>
  );
}
