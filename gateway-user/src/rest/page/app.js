// Asks the REST API of the member that served this page, again whenever it tells of a change.

import * as render from "./render.js";

const PERIOD = 2000; // milliseconds between looks at the counters
const PATIENCE = 3000; // milliseconds for an answer
const DEBOUNCE = 150; // milliseconds: a takeover tells many events at once
const PAGE = 25; // tunnels per page
const EMPTY_PAGES = 20; // pages in a row that are asked for when little matches
const TOLD = ["failover", "member-state", "peer-up", "peer-down"];
const KINDS = [...TOLD, "view", "ike-sa-up", "ike-sa-down", "child-sa-up", "child-sa-down", "lagged"];

let answered = Date.now() / 1000;
let before = null;
let after = null;
let wish = {};
let failures = [];
let newest = null; // of the news, by the member's clock
let following = null;
let pending = null;
let running = false;
let again = false;

async function get(path) {
  const response = await fetch(path, { signal: AbortSignal.timeout(PATIENCE), cache: "no-store" });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.detail ?? `answer ${response.status}`);
  return answer;
}

async function counters() {
  const now = { time: performance.now(), totals: render.totals(await get("/api/v1/stats")) };
  render.rates(now.totals, before?.totals, before ? (now.time - before.time) / 1000 : 0);
  before = now;
}

async function tunnels() {
  let page;
  let from = after;
  for (let asked = 0; asked < EMPTY_PAGES; asked += 1) {
    const query = new URLSearchParams({ ...wish, limit: PAGE });
    if (from) query.set("after", from);
    try {
      page = await get(`/api/v1/sas?${query}`);
    } catch (error) {
      if (!Object.keys(wish).length) throw error;
      render.tunnels({ ike_sas: [], next: null }, `Cannot search for that: ${error.message}`);
      return null;
    }
    if (page.ike_sas.length || page.next === null) break;
    from = page.next;
  }
  const more = page.next === null ? "this is the last page" : "there are more";
  render.tunnels(page, `Tunnels on this page: ${page.ike_sas.length}; ${more}`);
  return page.next;
}

async function look() {
  const [status, members, view, pnotes, sync, interfaces, history] = await Promise.all(
    ["status", "members", "view", "pnotes", "sync", "interfaces", "history"]
      .map((name) => get(`/api/v1/${name}`)));
  render.status(status);
  render.members(members);
  render.slots(view, members);
  render.pnotes(pnotes);
  render.sync(sync);
  render.interfaces(interfaces);
  render.history(history);
  missed(history);
  await counters();
  following = await tunnels();
}

/// One look at a time; a wish for another during one is kept.
async function refresh() {
  if (running) {
    again = true;
    return;
  }
  running = true;
  try {
    await look();
    answered = Date.now() / 1000;
    render.stale(null);
  } catch (error) {
    const silent = error.name === "TypeError" || error.name === "TimeoutError";
    render.stale(answered, silent ? "the member does not answer" : error.message);
  }
  running = false;
  if (again) {
    again = false;
    soon();
  }
}

function soon() {
  pending ??= setTimeout(() => {
    pending = null;
    refresh();
  }, DEBOUNCE);
}

/// The same event can come by both ways, but never an older one.
function tell(event) {
  const known = newest && (event.time < newest.time
    || (event.time === newest.time && event.kind === newest.kind && event.member === newest.member));
  if (known) return;
  newest = event;
  render.news(render.about(event), event.time);
}

/// What happened while nobody listened, oldest first. What was before the page is in the history alone.
function missed(history) {
  newest ??= history.events[0] ?? { time: 0 };
  history.events.filter((event) => TOLD.includes(event.kind)).reverse().forEach(tell);
}

function hear(event) {
  if (TOLD.includes(event.type)) tell(JSON.parse(event.data));
  soon();
}

/// The browser connects again by itself after most errors, but not after an answer like 503.
function listen() {
  const source = new EventSource("/api/v1/events");
  for (const kind of KINDS) source.addEventListener(kind, hear);
  source.addEventListener("failure", (event) => {
    failures = [JSON.parse(event.data), ...failures].slice(0, 50);
    render.failures(failures);
  });
  source.addEventListener("open", soon);
  source.addEventListener("error", () => {
    soon();
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, PERIOD);
  });
}

function turn(to) {
  after = to;
  refresh();
}

render.at("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = render.at("search-text").value.trim();
  wish = text ? { [render.at("search-field").value]: text } : {};
  turn(null);
});
render.at("first").addEventListener("click", () => turn(null));
render.at("next").addEventListener("click", () => turn(following));
document.addEventListener("visibilitychange", soon);
setInterval(() => document.hidden || refresh(), PERIOD);
render.failures(failures);
listen();
refresh();
