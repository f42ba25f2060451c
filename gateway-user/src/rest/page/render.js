// Puts answers into the page. Names, identities and reasons come from peers and other members: they
// are text, and only ever become text nodes.

const FAIR = ["ACTIVE", "STANDBY", "BACKUP", "READY"];
const KEPT_NEWS = 8;
const KEPT_FAILURES = 50;

export const at = (id) => document.getElementById(id);

function element(name, text, className) {
  const made = document.createElement(name);
  made.textContent = text ?? "";
  if (className) made.className = className;
  return made;
}

/// A cell is a text, or a pair of a text and a class.
function row(cells) {
  const line = document.createElement("tr");
  for (const cell of cells) {
    const [text, className] = Array.isArray(cell) ? cell : [cell];
    line.append(element("td", text, className));
  }
  return line;
}

function fill(id, rows, none) {
  const body = at(id).querySelector("tbody");
  const lines = rows.map(row);
  if (!lines.length) {
    lines.push(row([none]));
    lines[0].firstChild.colSpan = at(id).querySelectorAll("th").length;
  }
  body.replaceChildren(...lines);
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  const s = Math.floor(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor(s / 3600) % 24} h`;
}

// Members and logs of several places are compared: always UTC.
export const clock = (since1970) => `${moment(since1970).slice(11, 19)} UTC`;
const moment = (since1970) => new Date(since1970 * 1000).toISOString().slice(0, 23).replace("T", " ");

/// Only what differs is written, so that a screen reader is not told the same again.
function say(id, text) {
  if (at(id).textContent !== text) at(id).textContent = text;
}

export function status(answer) {
  say("title", `${answer.cluster}: member ${answer.member}, ${answer.name}`);
  document.title = `${answer.name} ${answer.state} – ${answer.cluster}`;
  say("summary", `${answer.state}, ${answer.mode}, view ${answer.epoch}, ${answer.slots_owned} of 256 slots, `
    + `${answer.ike_sas} IKE SAs and ${answer.child_sas} CHILD_SAs here, ${answer.half_open} half-open, `
    + `up for ${duration(answer.uptime_seconds)}, version ${answer.version}`);
}

export function members(answer) {
  fill("members", answer.members.map((m) => [
    m.id, m.local ? `${m.name} (this one)` : m.name,
    [m.state + (m.drained ? ", drained" : ""), FAIR.includes(m.state.split(" ")[0]) ? "" : "alarm"],
    m.slots,
    [m.local ? "–" : !m.connected ? "not connected" : m.in_sync ? "in sync" : "behind",
      m.local || (m.connected && m.in_sync) ? "" : "alarm"],
    m.sync_address, duration(m.last_change_seconds),
    m.config_differs ? `${m.reason} (configured differently)` : m.reason,
  ]), "None");
}

const label = (owner) => (owner ? String(owner) : "·");
const colour = (owner) => (owner ? `slot o${(owner - 1) % 8 + 1}` : "slot");
let owners = [];

export function slots(view, known) {
  const name = new Map(known.members.map((m) => [m.id, m.name]));
  const counts = new Map();
  const cells = view.slots.map((owner, slot) => {
    counts.set(owner, (counts.get(owner) ?? 0) + 1);
    const cell = element("span", label(owner), colour(owner));
    cell.title = `slot ${slot}: ${name.get(owner) ?? "nobody"}`;
    if (owners.length && owners[slot] !== owner) cell.classList.add("changed");
    return cell;
  });
  if (String(owners) === String(view.slots)) return;
  owners = view.slots;
  at("slot-picture").replaceChildren(...cells);
  const parts = [...counts].sort((a, b) => a[0] - b[0])
    .map(([owner, count]) => [owner, `${name.get(owner) ?? (owner ? `member ${owner}` : "nobody")} owns ${count}`]);
  at("slot-picture").setAttribute("aria-label", `256 slots: ${parts.map((p) => p[1]).join(", ")}`);
  at("slot-legend").replaceChildren(...parts.map(([owner, text]) => {
    const item = document.createElement("li");
    item.append(element("span", label(owner), colour(owner)), ` ${text}`);
    return item;
  }));
}

/// Frames by what became of them, from the programs' reasons and the members' counters.
export function totals(stats) {
  const sum = (end) => Object.entries(stats.reasons)
    .filter(([reason]) => reason.endsWith(end)).reduce((all, [, count]) => all + count.packets, 0);
  const members = Object.values(stats.members);
  const already = ["already_forwarded", "inside_already_forwarded"]
    .reduce((all, reason) => all + (stats.reasons[reason]?.packets ?? 0), 0);
  const redirected = sum("_forwarded") - already;
  const local = sum("_local");
  return {
    "Steered (local and redirected)": local + redirected,
    "Handled by this member": local,
    "Redirected to other members": redirected,
    "Received from other members": members.reduce((all, m) => all + m.received.packets, 0),
  };
}

export function rates(now, before, seconds) {
  fill("rates", Object.entries(now).map(([name, count]) => [
    name, before && seconds > 0 ? Math.max(0, (count - before[name]) / seconds).toFixed(1) : "…", count,
  ]), "None");
}

export function sync(answer) {
  fill("sync", answer.peers.map((p) => [
    p.name, [p.connected ? "up" : "down", p.connected ? "" : "alarm"], p.lag, p.lag_seconds.toFixed(3),
    p.round_trip_ms === null ? "–" : `${p.round_trip_ms.toFixed(1)} ms`, p.last_error ?? "",
  ]), "No other member");
}

export function tunnels(page, note) {
  fill("tunnels", page.ike_sas.map((sa) => [
    sa.connection, sa.remote, sa.remote_id, sa.owner, sa.slot, sa.proposal, duration(sa.established_seconds),
    sa.children.map((c) => `${c.local_ts.join(" ")} = ${c.remote_ts.join(" ")}`).join("; "),
  ]), "No tunnel");
  say("tunnels-note", note);
  at("next").disabled = page.next === null;
}

/// A state's change is about a member, which the text leaves out.
export const about = (event) => (event.member ? `member ${event.member}: ${event.text}` : event.text);

export function history(answer) {
  say("failovers", `Failovers since the agent started: ${answer.failovers}`);
  fill("history", answer.events.map((e) => [moment(e.time), e.kind, about(e)]), "Nothing yet");
}

export function failures(list) {
  fill("failures", list.slice(0, KEPT_FAILURES).map((e) => [moment(e.time), e.connection, e.peer, e.text]), "None");
}

export function interfaces(answer) {
  say("vips", `Addresses of the cluster: ${answer.vips.join(", ")}`);
  fill("interfaces", answer.interfaces.map((i) => [i.name, i.role, i.mode, i.fence ?? "none"]), "None");
}

export function pnotes(answer) {
  fill("pnotes", answer.pnotes.map((p) => [
    p.name, [p.state, p.state === "problem" ? "alarm" : ""], p.reason, `${duration(p.age_seconds)} ago`,
  ]), "None");
}

export function news(text, time) {
  at("news").prepend(element("li", `${clock(time)} ${text}`));
  while (at("news").children.length > KEPT_NEWS) at("news").lastChild.remove();
}

/// `since`: when the last answer came, in seconds since 1970; null: the page is up to date.
export function stale(since, why) {
  const text = since === null ? "" : `Stale since ${clock(since)}: ${why}. Trying again.`;
  say("stale", text);
  at("stale").hidden = since === null;
}
