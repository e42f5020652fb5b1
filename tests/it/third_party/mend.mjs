// Mends the installed copy of `emulate`, an emulator of Google by others, where it departs from Google
// so far that no client written for Google can sync from it, or where it would not run here:
//
//     node mend.mjs node_modules/emulate
//
// Everything else stays as its authors made it; `raw`, for instance, comes without padding. Each text
// must be there just as often as is said here, so that another version is not mended by half.

import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const MENDS = [
  {
    why: "a history id is a uint64, and 21 digits do not fit",
    times: 1,
    find: "BigInt(`${Date.now()}${entropy}`)",
    replace: "BigInt(Date.now()) * 1000n",
  },
  {
    why: "users.getProfile is missing, which names the account and where its history stands",
    times: 1,
    find: '  app.get("/gmail/v1/users/:userId/history", (c) => {\n',
    replace: `  app.get("/gmail/v1/users/:userId/profile", (c) => {
    const emailAddress = requireGmailUser(c);
    if (emailAddress instanceof Response) return emailAddress;
    const messages = gs.messages.findBy("user_email", emailAddress);
    return c.json({
      emailAddress,
      messagesTotal: messages.length,
      threadsTotal: new Set(messages.map((message) => message.thread_id)).size,
      historyId: getCurrentHistoryId(gs, emailAddress)
    });
  });
  app.get("/gmail/v1/users/:userId/history", (c) => {
`,
  },
  {
    why: "it would listen on every address of the machine",
    times: 2,
    find: "serve({ fetch: app.fetch, port })",
    replace: 'serve({ fetch: app.fetch, port, hostname: "127.0.0.1" })',
  },
  {
    why: "Node 18, which Debian 12 has, knows no global crypto",
    times: 1,
    find: 'import { randomBytes } from "crypto";\n',
    replace: 'import { randomBytes, webcrypto } from "crypto";\nglobalThis.crypto ??= webcrypto;\n',
  },
];

const folder = join(process.argv[2], "dist");
const sources = new Map();
for (const name of readdirSync(folder)) {
  // The part for Google and the command line; other services have texts like these.
  const source = name.endsWith(".js") ? readFileSync(join(folder, name), "utf8") : "";
  if (name === "index.js" || source.includes("// ../@emulators/google/dist/index.js")) {
    sources.set(name, source);
  }
}
for (const { why, times, find, replace } of MENDS) {
  let found = 0;
  for (const [name, source] of sources) {
    const parts = source.split(find);
    found += parts.length - 1;
    sources.set(name, parts.join(replace));
  }
  if (found !== times) {
    throw new Error(`${why}: ${JSON.stringify(find)} is there ${found} times, not ${times}`);
  }
}
for (const [name, source] of sources) writeFileSync(join(folder, name), source);
