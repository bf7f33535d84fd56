// Asks for the state once a second and shows it. Names and messages come from models and from
// other machines: they are only ever set as text, never parsed as HTML.
"use strict";

const EVERY_MS = 1000;
const PATIENCE_MS = 3000;
const find = (id) => document.getElementById(id);

function element(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

const known = (value) => value !== null && value !== undefined;
const rounded = (value) => (value >= 100 ? Math.round(value) : Number(value.toPrecision(3)));
const digits = (value) => rounded(value).toString();

// In the first unit, each of which is a thousand of the one before, that leaves less than a thousand.
function inUnits(value, units) {
  if (!known(value)) return "–";
  let at = 0;
  while (rounded(value) >= 1000 && at < units.length - 1) {
    value /= 1000;
    at += 1;
  }
  return `${digits(value)} ${units[at]}`;
}

const ms = (value) => (value ? inUnits(1000 * value, ["µs", "ms", "s"]) : inUnits(value, ["ms"]));
const rate = (mbps) => inUnits(known(mbps) ? 1000 * mbps : mbps, ["kbit/s", "Mbit/s", "Gbit/s"]);
const bytes = (value) => inUnits(value, ["B", "kB", "MB", "GB"]);

function ago(seconds) {
  if (seconds < 1) return "now";
  if (seconds < 60) return `${seconds.toFixed(0)} s ago`;
  if (seconds < 3600) return `${(seconds / 60).toFixed(0)} min ago`;
  return `${(seconds / 3600).toFixed(1)} h ago`;
}

function tierOf(tier, state, total, reached) {
  const stop = known(tier.stop) ? tier.stop : state.nodes;
  const idle = !known(tier.start) || tier.start === stop;
  const card = element("li", idle || !reached ? "tier idle" : "tier", element("b", "", tier.name));
  if (!reached) {
    card.append(element("span", "quiet", "out of reach"));
    return card;
  }
  card.append(element("span", "quiet", idle ? "no nodes" : `nodes ${tier.start} to ${stop}`));
  if (idle || !known(tier.compute_ms)) return card;
  card.append(element("div", "", `${ms(tier.compute_ms)} compute`), element("div", "quiet", `${ms(tier.queue_ms)} queue`));
  const bar = element("span", "");
  bar.style.width = `${Math.min(100, (100 * tier.compute_ms) / Math.max(total, 1e-9))}%`;
  card.append(element("div", "share", bar));
  return card;
}

function linkOf(link, below) {
  const kind = link.state === "down" ? "link down" : link.in_use ? "link" : "link unused";
  const row = element("li", kind);
  if (link.state === "up") {
    row.append(element("span", "", known(link.bandwidth_mbps) ? rate(link.bandwidth_mbps) : "speed unknown"));
    if (known(link.delay_ms)) row.append(element("span", "", `${ms(link.delay_ms)} delay`));
  } else {
    row.append(element("span", "", link.state === "down" ? "down" : "out of reach"));
  }
  const told = link.in_use && known(below.link_ms);
  row.append(
    element("span", "arrow"),
    element("span", "quiet", told ? `${bytes(below.sent_nbytes)} in ${ms(below.link_ms)}` : "not in use"),
  );
  return row;
}

function showChain(state) {
  const children = [];
  const total = state.latency_ms.p50 || 0;
  state.tiers.forEach((tier, at) => {
    if (at > 0) children.push(linkOf(state.links[at - 1], state.tiers[at - 1]));
    children.push(tierOf(tier, state, total, state.links.slice(0, at).every((link) => link.state === "up")));
  });
  find("chain").replaceChildren(...children);
  const cuts = state.cuts === null ? "No slices are left for what can be reached" : state.placement.startsWith("all on") ? `${state.placement[0].toUpperCase()}${state.placement.slice(1)}` : `Cuts at ${state.cuts.join(", ") || "no node"} of ${state.nodes} nodes`;
  find("cuts").textContent = `${cuts}: ${state.reason}.`;
}

function showFigures(state) {
  const counts = state.counts;
  const rows = [
    ["answered", counts.answered],
    ["failed", counts.failed, counts.failed > 0],
    ["under way", counts.under_way],
    ["a second", digits(state.per_s)],
    ["median latency", ms(state.latency_ms.p50)],
    ["95th percentile", ms(state.latency_ms.p95)],
    ["changes of cuts", counts.switches],
    ["second attempts", counts.retried],
  ];
  find("figures").replaceChildren(
    ...rows.map(([name, value, bad]) => element("div", bad ? "bad" : "", element("dt", "", name), element("dd", "", String(value)))),
  );
}

function showChart(state) {
  const marks = state.events.filter((event) => event.kind === "cuts").map((event) => event.at_s);
  drawLatencies(find("chart"), state.recent, marks, state.uptime_s);
  if (state.recent.length === 0) return;
  const lines = marks.length ? " Dashed lines are changes of cuts." : "";
  find("chart-title").textContent = `Latency of the last ${state.recent.length} requests, a colour for each cut.${lines}`;
}

function showEvents(state) {
  const rows = state.events.map((event) => {
    const isBad = event.kind === "error" || (event.kind === "link" && event.text.endsWith("down"));
    const what = event.kind === "cuts" ? `cuts: ${event.text}` : event.text;
    return element(
      "tr",
      isBad ? "bad" : "",
      element("td", "", ago(state.uptime_s - event.at_s)),
      element("td", "", what),
      element("td", "", event.reason),
    );
  });
  find("events").tBodies[0].replaceChildren(...rows);
  find("events").hidden = rows.length === 0;
  find("no-events").hidden = rows.length > 0;
}

function show(state) {
  find("model").textContent = state.model;
  document.title = `${state.model} – dnnsplit-onnx`;
  find("version").textContent = `dnnsplit-onnx ${state.version}`;
  showChain(state);
  showFigures(state);
  showChart(state);
  showEvents(state);
}

function say(state, text) {
  const status = find("status");
  if (status.textContent !== text) status.textContent = text; // a screen reader says what changes
  status.dataset.state = state;
}

async function refresh() {
  try {
    const answer = await fetch("state.json", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const state = await answer.json();
    show(state);
    const down = state.links.find((link) => link.state === "down");
    say(down ? "down" : "live", down ? `${down.from} to ${down.to} is down` : "live");
  } catch {
    say("down", "the client does not answer; these are its last figures");
  }
  setTimeout(refresh, EVERY_MS);
}

refresh();
