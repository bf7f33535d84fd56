// Draws latencies over time into an SVG element, with the units of dashboard.js. Nothing here reads
// text from the network.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const COLOURS = 8;
const MARGIN = { left: 52, right: 10, top: 12, bottom: 24 };

function shape(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

// The smallest of 1, 2, 5, 10, 20, ... that is not below a value.
function roundedUp(value) {
  const unit = 10 ** Math.floor(Math.log10(value));
  return unit * [1, 2, 5, 10].find((factor) => factor * unit >= value * 0.999);
}

// The index of each plan's colour, as reporting/colours.py chooses it: by its name alone, and the next
// that is free where two of one picture would share one; plans on a single tier choose first.
function planColours(names) {
  const used = Array(COLOURS).fill(0);
  const all = [...new Set(names)].sort();
  const singles = all.filter((name) => name.startsWith("all on "));
  const ordered = [...singles, ...all.filter((name) => !singles.includes(name))];
  return new Map(ordered.map((name) => {
    let first = 0;
    for (const letter of name) first = (first * 31 + letter.codePointAt(0)) % 8191;
    let colour = first % COLOURS;
    for (let step = 1; step < COLOURS; step += 1) {
      const next = (first + step) % COLOURS;
      if (used[next] < used[colour]) colour = next;
    }
    used[colour] += 1;
    return [name, colour];
  }));
}

// svg: the element; recent: [[seconds, milliseconds, cuts], ...]; marks: seconds of changes of cuts.
function drawLatencies(svg, recent, marks, now) {
  const width = svg.clientWidth || 600;
  const height = svg.clientHeight || 200;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren();
  if (recent.length === 0) return;
  const first = recent[0][0];
  const span = Math.max(now - first, 1);
  const top = roundedUp(Math.max(...recent.map(([, ms]) => ms), 0.001));
  const x = (at) => MARGIN.left + ((at - first) / span) * (width - MARGIN.left - MARGIN.right);
  const y = (ms) => height - MARGIN.bottom - (ms / top) * (height - MARGIN.top - MARGIN.bottom);
  for (const share of [0, 0.5, 1]) {
    const at = y(share * top);
    svg.append(
      shape("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: at, y2: at }),
      shape(
        "text",
        { class: "label", x: MARGIN.left - 6, y: at + 4, "text-anchor": "end" },
        ms(share * top),
      ),
    );
  }
  svg.append(
    shape("text", { class: "label", x: MARGIN.left, y: height - 6 }, ago(span)),
    shape("text", { class: "label", x: width - MARGIN.right, y: height - 6, "text-anchor": "end" }, "now"),
  );
  for (const at of marks) {
    if (at < first) continue;
    svg.append(shape("line", { class: "mark", x1: x(at), x2: x(at), y1: MARGIN.top, y2: height - MARGIN.bottom }));
  }
  const colours = planColours(recent.map(([, , cut]) => cut));
  for (const [at, ms, cut] of recent) {
    const dot = shape("circle", { class: `dot cut${colours.get(cut)}`, cx: x(at), cy: y(ms), r: 2.2 });
    dot.append(shape("title", {}, cut));
    svg.append(dot);
  }
}
