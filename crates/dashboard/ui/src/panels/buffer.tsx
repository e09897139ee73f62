/** The message buffer: its gauge, its batches, its throughput, and what came last. */

import { signal } from "@preact/signals";
import { Strip } from "../chart";
import { Refusal, ask } from "../api";
import { Foreign } from "../bidi";
import { NONE, age, clock, full, moment, rate, several } from "../format";
import { Count, Panel } from "../parts";
import { WINDOW, bufferOn, bufferPoints, bufferSeen, bufferStats, bufferVersion, messages, now } from "../store";

const answered = signal("");
const sending = signal(false);

async function send(form: HTMLFormElement): Promise<void> {
  const fields = new FormData(form);
  sending.value = true;
  try {
    const body = { user_id: Number(fields.get("user")), channel_id: Number(fields.get("channel")), content: String(fields.get("content")) };
    const { message_id } = await ask<{ message_id: string }>("messages", "POST", body);
    answered.value = `Queued as ${message_id}.`;
    form.querySelector<HTMLInputElement>("[name=content]")?.focus();
    (form.elements.namedItem("content") as HTMLInputElement).value = "";
  } catch (error) {
    answered.value = error instanceof Refusal ? `Not queued: ${error.detail}` : "Not queued.";
  }
  sending.value = false;
}

/** On its own: it is read aloud when it changes, and must not be touched when the figures do. */
function Answer() {
  return <p class="answer" role="status">{answered.value}</p>;
}

export function Buffer() {
  if (!bufferOn.value) return null;
  bufferVersion.value;
  const stats = bufferStats.value;
  const seconds = (now.value - bufferSeen.value) / 1000;
  const old = !stats || seconds > 5;
  const size = stats?.batch_threshold ?? 0;
  const filled = Math.min(stats?.batch_progress ?? 0, size);
  const list = messages.value.value ?? [];
  return (
    <Panel id="buffer" title="Message buffer" note={old ? (stats ? `as of ${age(seconds)} ago` : "waiting for metrics") : ""} old={old}>
      <div class="columns">
        <div>
          <p class="gauge">
            <span class="value">{stats ? `${full(filled)} of ${full(size)}` : NONE}</span>
            <span class="note">messages in the next batch{stats && stats.batches_ready > 0 ? `, ${several(stats.batches_ready, "batch", "batches")} ready` : ""}</span>
            <meter min={0} max={size || 1} value={filled} aria-label="Messages in the next batch" />
          </p>
          <dl class="cells">
            <div><dt>Queued</dt><dd><Count value={stats?.queue_length} /></dd></div>
            <div><dt>Messages stored</dt><dd><Count value={stats?.total_messages} /></dd></div>
            <div><dt>Batches stored</dt><dd><Count value={stats?.total_batches} /></dd></div>
            <div><dt>Average batch</dt><dd>{stats ? rate(stats.avg_batch_size) : NONE}</dd></div>
          </dl>
        </div>
        <div class="strips">
          <div class="row">
            <p><span class="kind">Messages/s</span><span class="value">{old || !stats ? NONE : rate(stats.messages_per_second)}</span><span class="note">over 10 s</span></p>
            <Strip
              label="Messages per second, last 10 minutes"
              data={() => (bufferVersion.value, { at: bufferPoints.map((point) => point.at), values: bufferPoints.map((point) => point.value) })}
              range={() => {
                const end = bufferPoints.at(-1)?.at ?? Date.now() / 1000;
                return [end - WINDOW, end];
              }}
              group="buffer"
              times
            />
          </div>
        </div>
        <div>
          <form class="controls send" onSubmit={(event) => { event.preventDefault(); void send(event.currentTarget); }}>
            <label>User<input name="user" type="number" min={1} max={2147483647} defaultValue="1" required /></label>
            <label>Channel<input name="channel" type="number" min={1} max={2147483647} defaultValue="1" required /></label>
            <label class="content">Message<input name="content" type="text" maxLength={2000} required autocomplete="off" /></label>
            <button type="submit" disabled={sending.value}>Send</button>
          </form>
          <Answer />
          <div class="scroll" tabIndex={0} role="region" aria-label="Latest messages, newest first">
            <table>
              <thead><tr><th scope="col" class="time">Stored</th><th scope="col" class="from">From</th><th scope="col">Message</th></tr></thead>
              <tbody>
                {list.map((message, index) => (
                  <tr key={index}>
                    <td class="time" title={moment(Date.parse(message.inserted_at))}>{clock(Date.parse(message.inserted_at))}</td>
                    <td class="from" title={`User ${message.user_id} in channel ${message.channel_id}`}>{message.user_id} in {message.channel_id}</td>
                    <td class="content" title={message.content}><Foreign text={message.content} /></td>
                  </tr>
                ))}
              </tbody>
            </table>
            {list.length === 0 && <p class="empty">No messages yet.</p>}
          </div>
        </div>
      </div>
    </Panel>
  );
}
