// Mends the installed copy of `emulate`, an emulator of Google and GitHub by others, where it departs from
// them so far that no client written for them can sync from it, or where it would not run here:
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

const GITHUB_MENDS = [
  {
    why: "GET /issues is missing, which lists the issues of all repositories that somebody sees",
    times: 1,
    find: '  app.get("/repos/:owner/:repo/issues", (c) => {\n',
    replace: `  app.get("/issues", (c) => {
    const user = gh.users.findOneBy("login", c.get("authUser")?.login);
    if (!user) throw notFound();
    const { page, per_page } = parsePagination(c);
    const { state, sort, direction, sinceQ } = parseIssueListFilters(c);
    const seen = gh.repos.all().filter((repo) => canAccessRepo(gh, c.get("authUser"), repo));
    let list = seen.flatMap((repo) => gh.issues.findBy("repo_id", repo.id));
    if (state !== "all") list = list.filter((issue) => issue.state === state);
    if (sinceQ) list = list.filter((issue) => issue.updated_at >= sinceQ);
    list = sortIssues(list, sort, direction);
    setLinkHeader(c, list.length, page, per_page);
    const start = (page - 1) * per_page;
    return c.json(list.slice(start, start + per_page).map((issue) => ({
      ...formatIssue(issue, gh, baseUrl),
      ...(issue.is_pull_request ? { pull_request: {} } : {})
    })));
  });
  app.get("/repos/:owner/:repo/issues", (c) => {
`,
  },
];

const folder = join(process.argv[2], "dist");

// Mends the files whose name and text `isMeant`; the parts for other services have texts like these.
function mend(mends, isMeant) {
  const sources = new Map();
  for (const name of readdirSync(folder)) {
    const source = name.endsWith(".js") ? readFileSync(join(folder, name), "utf8") : "";
    if (isMeant(name, source)) sources.set(name, source);
  }
  for (const { why, times, find, replace } of mends) {
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
}

const isOf = (service) => (_, source) => source.includes(`// ../@emulators/${service}/dist/index.js`);
mend(MENDS, (name, source) => name === "index.js" || isOf("google")(name, source));
mend(GITHUB_MENDS, isOf("github"));
