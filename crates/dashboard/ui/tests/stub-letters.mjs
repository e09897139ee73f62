// What the canned dashboard does with filters of the live stream and with dead letters, as the real one does.

/** Whether a pattern with stars fits a text. */
function fits(pattern, text) {
  const source = pattern.toLowerCase().split("*").map((part) => part.replace(/[.+?^${}()|[\]\\]/g, "\\$&")).join(".*");
  return new RegExp(`^${source}$`, "s").test((text ?? "").toLowerCase());
}

/** Whether a client of the live stream asked for an event. */
export function wants(asked, event) {
  const one = (name, holds) => asked.getAll(name).length === 0 || asked.getAll(name).some(holds);
  return one("type", (type) => `#${type}` === event.type) && one("collection", (name) => fits(name, event.lexicon)) && one("did", (did) => fits(did, event.did))
    && one("action", (action) => action === (event.action.startsWith("→") ? "handle" : event.action));
}

function head({ data, source = "redis", ...letter }) {
  const entry = letter.type === "raw" ? {} : JSON.parse(data);
  return {
    source, at: Number(letter.id.split("-")[0]), repo: entry.repo ?? null, uri: entry.ops ? `at://${entry.repo}/${entry.ops[0].path}` : null, bytes: data.length,
    replayable: letter.type !== "raw", reason: letter.error.replace(/\d+/g, "…").replace(/“.*?”/g, "…"), ...letter, origId: letter.origId ?? "",
  };
}

/** Answers what is asked of `/api/dead-letters`; null: nothing of the kind. */
export function lettersAnswer(stub, method, url) {
  const path = url.pathname.replace("/api/dead-letters", "");
  const asked = url.searchParams;
  const text = asked.get("text")?.toLowerCase() ?? "";
  const wanted = (letter) => {
    const one = head(letter);
    return (!asked.get("reason") || asked.get("reason") === one.reason) && (!asked.get("type") || asked.get("type") === one.type)
      && [one.error, one.uri, one.repo, one.id].some((field) => (field ?? "").toLowerCase().includes(text));
  };
  const matching = stub.letters.filter(wanted).sort((a, b) => head(b).at - head(a).at);
  const known = { complete: true, postgres: stub.lettersPostgres };
  if (path === "/groups" && method === "GET") {
    const groups = new Map();
    for (const one of matching.map(head)) {
      const group = groups.get(one.reason) ?? { reason: one.reason, example: one.error, count: 0, onlyInPostgres: 0, replayable: 0, first: one.at, last: one.at, types: [], repos: 1 };
      group.count += 1;
      group.onlyInPostgres += one.source === "postgres" ? 1 : 0;
      group.replayable += one.replayable ? 1 : 0;
      group.first = Math.min(group.first, one.at);
      group.types = [...new Set([...group.types, one.type])];
      groups.set(one.reason, group);
    }
    const list = [...groups.values()].sort((a, b) => b.count - a.count || b.last - a.last);
    return { groups: list, reasons: list.length, total: matching.length, onlyInPostgres: matching.filter(({ source }) => source === "postgres").length, ...known };
  }
  if (path === "" && method === "GET") {
    const [from, limit] = [Number(asked.get("cursor") ?? 0), Number(asked.get("limit") ?? 100)];
    const next = from + limit < matching.length ? String(from + limit) : null;
    return { items: matching.slice(from, from + limit).map(head), cursor: next, total: matching.length, ...known };
  }
  if (path === "/export") return matching.map((letter) => `${JSON.stringify({ ...head(letter), data: letter.data })}\n`).join("");
  const [, id, replay] = /^\/postgres\/([\w-]+)(\/replay)?$/.exec(path) ?? [];
  if (id && method === "GET") return stub.letters.filter((letter) => letter.id === id).map((letter) => ({ ...head(letter), data: letter.data }))[0] ?? null;
  if (method === "GET") return null;
  const gone = id ? stub.letters.filter((letter) => letter.id === id) : matching;
  stub.letters = stub.letters.filter((letter) => !gone.includes(letter));
  const done = replay || path === "/replay" ? "replayed" : "deleted";
  return { success: true, replayed: 0, left: 0, refused: 0, deleted: 0, more: false, [done]: gone.length };
}
