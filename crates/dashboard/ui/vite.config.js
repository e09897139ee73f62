// PENSTOCK_URL says where a pipeline's dashboard answers, for `npm run dev`.
const target = process.env.PENSTOCK_URL ?? "http://127.0.0.1:8000";
const paths = ["/api", "/health", "/ready", "/messages", "/queue"];

export default {
  // Relative, so that the page may stand under a path of an ingress.
  base: "./",
  build: {
    target: "es2022",
    // dist/.gitignore stays: scripts/pack.mjs clears the rest beforehand.
    emptyOutDir: false,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  esbuild: { jsx: "automatic", jsxImportSource: "preact", legalComments: "none" },
  server: {
    proxy: {
      ...Object.fromEntries(paths.map((path) => [path, target])),
      "/ws": { target, ws: true },
    },
  },
};
