/** Server-sent events over `fetch`: unlike `EventSource` it says why it was refused, and asks again after any answer. */

import { Refusal, refusal } from "./api";

export interface Sent {
  data: string;
  /** The last id that was sent. */
  id: string;
}

/** Takes a stream apart, however it was cut into pieces. */
export class Parser {
  id = "";
  /** The id of the last message that is whole, be it one without data. */
  told = "";
  /** How long to wait before connecting again, in ms, where the server said so. */
  retry: number | null = null;
  #rest = "";
  #data: string[] = [];

  take(piece: string): Sent[] {
    const sent: Sent[] = [];
    const lines = (this.#rest + piece).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop() ?? "";
    for (const line of lines) {
      if (line === "") {
        if (this.#data.length > 0) sent.push({ data: this.#data.join("\n"), id: this.id });
        this.#data = [];
        this.told = this.id;
        continue;
      }
      const colon = line.indexOf(":");
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
      if (field === "data") this.#data.push(value);
      else if (field === "id" && !value.includes("\0")) this.id = value;
      else if (field === "retry" && /^\d+$/.test(value)) this.retry = Number(value);
    }
    return sent;
  }
}

/** How long to wait before the nth attempt in a row, in ms: 0.5 s to 15 s, of which up to half is left to chance. */
export function backoff(attempt: number, chance: number): number {
  return Math.min(15_000, 500 * 2 ** Math.min(attempt, 10)) * (1 - chance / 2);
}

export interface Listener {
  opened(): void;
  sent(data: string, id: string): void;
  /** The stream ended or could not be had; it is asked for again by itself, unless the answer was 401 or 403. */
  lost(refused: Refusal | null): void;
}

/** No byte for so long, in ms: the connection is dead, whatever the system believes. Two signs of life and a half. */
const SILENCE = 38_000;

/** A stream that lived for so long, in ms, was a good one. */
const HEALTHY = 5_000;

export class Stream {
  #attempt = 0;
  #id = "";
  #running: AbortController | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    public path: string,
    readonly listener: Listener,
  ) {}

  /** Asks for another stream in its place, from the beginning. */
  change(path: string): void {
    this.path = path;
    this.#id = "";
    this.#attempt = 0;
    this.start();
  }

  /** Connects now, in the place of what there may be. */
  start(): void {
    clearTimeout(this.#timer);
    this.#running?.abort();
    const running = new AbortController();
    this.#running = running;
    void this.#run(running);
  }

  /** Connects now, if it waits for the next attempt. */
  hurry(): void {
    if (!this.#running) this.start();
  }

  /** Gives the connection back, until it is started again: from where it was. */
  stop(): void {
    clearTimeout(this.#timer);
    const running = this.#running;
    this.#running = null;
    running?.abort();
  }

  async #run(running: AbortController): Promise<void> {
    let watch: ReturnType<typeof setTimeout> | undefined;
    const alive = () => {
      clearTimeout(watch);
      watch = setTimeout(() => running.abort(), SILENCE);
    };
    const parser = new Parser();
    parser.id = this.#id;
    parser.told = this.#id;
    let refused: Refusal | null = null;
    let since = Infinity;
    alive();
    try {
      const answer = await fetch(this.path, {
        headers: { accept: "text/event-stream", ...(this.#id ? { "last-event-id": this.#id } : {}) },
        cache: "no-store",
        signal: running.signal,
      });
      if (!answer.ok || !answer.body) throw await refusal(answer);
      since = performance.now();
      this.listener.opened();
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        alive();
        for (const { data, id } of parser.take(value)) {
          if (this.#running !== running) return;
          this.listener.sent(data, id);
        }
        // A stream of few events tells how far it is without one.
        this.#id = parser.told;
      }
    } catch (error) {
      if (error instanceof Refusal) refused = error;
    }
    clearTimeout(watch);
    if (this.#running !== running) return;
    this.#running = null;
    this.#attempt = performance.now() - since > HEALTHY ? 0 : this.#attempt + 1;
    this.listener.lost(refused);
    if (refused?.forbidden) return;
    const told = Math.min(30_000, Math.max(parser.retry ?? 0, (refused?.retryAfter ?? 0) * 1000));
    this.#timer = setTimeout(() => this.start(), Math.max(told, backoff(this.#attempt, Math.random())));
  }
}
