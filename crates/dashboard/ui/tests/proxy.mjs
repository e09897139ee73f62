// Serves the built page in front of a dashboard that carries another one.
import { createReadStream, existsSync } from "node:fs";
import { createServer, request as ask } from "node:http";
import { connect } from "node:net";
import { extname, join } from "node:path";
import { POLICY } from "./stub.mjs";

const DIST = new URL("../dist/", import.meta.url).pathname;
const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8" };

/** Listens on a free port; `url` is where. */
export async function proxy(target) {
  const { hostname, port } = new URL(target);
  const server = createServer((request, response) => {
    const path = request.url === "/" ? "index.html" : request.url.slice(1);
    if ((path === "index.html" || path.startsWith("assets/")) && existsSync(join(DIST, path))) {
      response.writeHead(200, { "content-type": TYPES[extname(path)], "content-security-policy": POLICY });
      return createReadStream(join(DIST, path)).pipe(response);
    }
    // As if it were asked by its own page.
    const headers = { ...request.headers, host: `${hostname}:${port}`, ...(request.headers.origin ? { origin: `http://${hostname}:${port}` } : {}) };
    const passed = ask({ hostname, port, path: request.url, method: request.method, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
      // A dashboard that dies in the middle of an answer leaves it as unfinished here.
      answer.on("error", () => response.destroy());
    });
    passed.on("error", () => response.destroy());
    response.on("close", () => passed.destroy());
    return request.pipe(passed);
  });
  server.on("upgrade", (request, socket) => {
    const passed = connect(Number(port), hostname, () => {
      const headers = Object.entries({ ...request.headers, host: `${hostname}:${port}`, origin: `http://${hostname}:${port}` });
      passed.write(`GET ${request.url} HTTP/1.1\r\n${headers.map(([name, value]) => `${name}: ${value}`).join("\r\n")}\r\n\r\n`);
      passed.pipe(socket).pipe(passed);
    });
    passed.on("error", () => socket.destroy());
    socket.on("error", () => passed.destroy());
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return {
    url: `http://127.0.0.1:${server.address().port}/`,
    stop() {
      server.close();
      server.closeAllConnections();
    },
  };
}
