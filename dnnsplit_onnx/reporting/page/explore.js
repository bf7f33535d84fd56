// What if: sliders that move the cut, plans against plans, the tensors of a cut, the neighbours of a node.
(() => {
  const read = (id) => {
    const found = document.getElementById(id);
    return found && JSON.parse(found.textContent);
  };
  const study = read("study");
  const tensors = read("tensors");
  for (const value of tensors ? tensors.values : []) {
    if (Array.isArray(value[0])) value[0] = tensors.nodes[value[3] - 1][1] + value[0][0];
    value[1] = tensors.kinds[value[1]];
  }
  const SVG = document.querySelector("svg")?.namespaceURI;
  const by = (id) => document.getElementById(id);

  const element = (name, attributes = {}, ...children) => {
    const made = attributes.svg ? document.createElementNS(SVG, name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) if (key !== "svg") made.setAttribute(key, value);
    made.append(...children);
    return made;
  };
  const short = (value) => {
    const rounded = Number(value.toPrecision(3));
    return rounded >= 1000 ? rounded.toLocaleString("en") : String(rounded);
  };
  const metric = (value, unit) => {
    const step = ["", "k", "M", "G", "T", "P"];
    let power = 0;
    while (value >= 999.5 && power < 5) { value /= 1000; power++; }
    return `${short(value)} ${step[power]}${unit}`.trim();
  };
  const unknown = (write) => (value) => (Number.isFinite(value) ? write(value) : "unknown");
  const seconds = unknown((value) => (value === 0 ? "0 s" : value < 0.9995e-3 ? `${short(value * 1e6)} µs`
    : value < 0.9995 ? `${short(value * 1e3)} ms` : `${short(value)} s`));
  // As Python writes it: $1.4e-07.
  const usd = unknown((value) => (value === 0 ? "$0" : `$${value < 1e-4
    ? String(Number(value.toPrecision(3)).toExponential()).replace(/e-(\d)$/, "e-0$1") : Number(value.toPrecision(3))}`));
  const joules = unknown((value) => (value && value < 0.9995 ? `${short(value * 1e3)} mJ` : `${short(value)} J`));
  const rate = (value) => (Number.isFinite(value) ? `${metric(value, "")}/s` : "unlimited");
  const nbytes = (value) => (value < 0 ? "?" : metric(value, "B"));
  const mbps = (value) => (value < 1 ? `${short(value * 1e3)} kbit/s` : value < 1000 ? `${short(value)} Mbit/s`
    : `${short(value / 1e3)} Gbit/s`);

  const table = (caption, headings, rows) => {
    const head = element("tr", {}, ...headings.map((name) => element("th",
      { scope: "col", class: name[0] === ">" ? "number" : "" }, name.replace(">", ""))));
    const body = rows.map((row) => element("tr", {}, ...row.map((cell, at) => element(at ? "td" : "th",
      { ...(at ? {} : { scope: "row" }), class: headings[at][0] === ">" ? "number" : "" }, cell))));
    const box = { class: "scroll", tabindex: 0, role: "region", "aria-label": caption };
    return element("div", box, element("table", {}, element("caption", {}, element("span", {}, caption)),
      element("thead", {}, head), element("tbody", {}, ...body)));
  };
  const link = (said, act) => {
    const made = element("button", { type: "button", class: "plain" }, said);
    made.addEventListener("click", act);
    return made;
  };

  // What crosses a cut, wherever it was pointed at.
  const MOST = 200;
  const showCut = (position) => {
    const box = by("picked");
    if (!box || !tensors) return;
    const live = tensors.values.filter(([, , , born, readers, kept]) =>
      !kept && readers.length && born <= position && position <= readers[readers.length - 1]);
    const total = live.every((value) => value[2] >= 0) ? live.reduce((sum, value) => sum + value[2], 0) : -1;
    const rows = live.slice(0, MOST).map(([name, kind, size, born]) => [name, kind, nbytes(size),
      born ? link(tensors.nodes[born - 1][1] || `position ${born - 1}`, () => showNode(born - 1)) : "(the input)"]);
    const number = element("input", { type: "number", min: 0, max: tensors.nodes.length, value: position,
      id: "cut-number" });
    number.addEventListener("change", () => showCut(Math.min(Math.max(0, Number(number.value)),
      tensors.nodes.length)));
    const more = live.length > MOST ? `, the first ${MOST} below` : "";
    const label = element("label", {}, "What crosses cut ", number);
    const said = position === tensors.nodes.length ? "Nothing crosses: every node is below." :
      `${live.length} tensor${live.length === 1 ? "" : "s"}, ${nbytes(total)}${more}.`;
    box.replaceChildren(label, element("p", { role: "status" }, said),
      ...(rows.length ? [table(`Tensors that cross cut ${position}.`, ["tensor", "type", ">size", "made by"], rows)]
        : []));
  };

  // A node and its neighbours.
  const svg = by("graph-svg");
  const rows = svg ? [...svg.querySelectorAll("[data-start]")] : [];
  const rowOf = (at) => rows.find((row) => Number(row.dataset.start) <= at && at < Number(row.dataset.stop));
  const go = (at) => {
    const row = rowOf(at);
    if (!row) return;
    rows.forEach((one) => one.classList.remove("picked", "near"));
    row.classList.add("picked");
    const box = by("graph");
    const [where, place] = [row.getBoundingClientRect(), box.getBoundingClientRect()];
    if (where.top < place.top || where.bottom > place.bottom) box.scrollTop += where.top - place.top - place.height / 2;
  };
  const showNode = (at) => {
    const box = by("picked");
    if (!box || !tensors) return;
    go(at);
    const [operator, name] = tensors.nodes[at];
    const made = tensors.values.filter((value) => value[3] === at + 1);
    const reads = tensors.values.filter((value) => value[4].includes(at));
    const node = (one) => link(`${one}: ${tensors.nodes[one][0]} ${tensors.nodes[one][1]}`, () => showNode(one));
    for (const [, , , born] of reads) if (born) rowOf(born - 1)?.classList.add("near");
    for (const value of made) for (const one of value[4]) rowOf(one)?.classList.add("near");
    const joined = (all) => {
      const cell = element("span");
      all.forEach((one) => cell.append(one, element("br")));
      return cell;
    };
    const lines = [...reads.map(([value, kind, size, born]) =>
      ["reads", value, kind, nbytes(size), born ? node(born - 1) : "(the input)"]),
    ...made.map(([value, kind, size, , readers]) =>
      ["makes", value, kind, nbytes(size), readers.length ? joined(readers.slice(0, 20).map(node)) : "(an output)"])];
    box.replaceChildren(element("p", { role: "status" }, `Node ${at}: ${operator} ${name}. `,
      link(`What crosses cut ${at + 1}, after it`, () => showCut(at + 1))),
    table(`Neighbours of node ${at}.`, ["", "tensor", "type", ">size", "node"], lines));
  };
  if (svg && tensors) {
    svg.addEventListener("click", (event) => {
      const row = event.target.closest("[data-start]");
      const cut = event.target.closest("[data-cut]");
      if (row) showNode(Number(row.dataset.start));
      if (cut) showCut(Number(cut.dataset.cut));
    });
    by("find").addEventListener("found", (event) => {
      if (event.detail.dataset.start) showNode(Number(event.detail.dataset.start));
    });
    by("picked").hidden = false;
    showCut(study ? study.at[study.cuts.length ? study.at.indexOf(study.cuts[0]) : 0] : 0);
  }
  for (const chart of document.querySelectorAll("[data-cut-left]")) {
    chart.addEventListener("click", (event) => {
      const { cutLeft, cutRight } = chart.dataset;
      const box = chart.getBoundingClientRect();
      const x = (event.clientX - box.left) / box.width * chart.viewBox.baseVal.width;
      const share = (x - Number(cutLeft)) / (Number(cutRight) - Number(cutLeft));
      showCut(Math.round(Math.min(Math.max(share, 0), 1) * tensors.nodes.length));
    });
  }

  // Sliders.
  const form = by("sliders");
  if (!form || !study) return;
  by("no-script").hidden = true;
  by("what-if-box").hidden = false;
  const sliders = [...form.querySelectorAll("input[type=range]")];
  const aim = by("aim");
  const planned = study.cuts.map((cut) => study.at.indexOf(cut));
  let kept = [];
  let shown = null;

  const setting = (slider) => {
    const place = Number(slider.value);
    const base = Number(slider.dataset.base);
    if (slider.dataset.kind === "delay_ms") {
      return slider.value === slider.defaultValue ? base : place ? 0.01 * 10 ** (place / 80) : 0;
    }
    const factor = 10 ** (place / 100);
    return slider.dataset.kind === "speed" ? factor : base * factor;
  };
  const settingsNow = () => {
    const settings = pricing.now(study);
    for (const slider of sliders) settings[slider.dataset.kind][slider.dataset.at] = setting(slider);
    settings.back = by("back").checked;
    return settings;
  };
  const say = (slider) => {
    const value = setting(slider);
    const gflops = Number(slider.dataset.base);
    const said = { speed: gflops ? metric(gflops * value * 1e9, "FLOP/s") : `${short(value)} times`,
      mbps: mbps(value), down_mbps: mbps(value), delay_ms: value ? seconds(value / 1e3) : "0 s" };
    slider.nextElementSibling.value = said[slider.dataset.kind];
    slider.setAttribute("aria-valuetext", said[slider.dataset.kind]);
  };
  const alone = (cuts) => {
    const bounds = [0, ...cuts, study.at.length - 1];
    const at = study.tiers.filter((_, t) => bounds[t + 1] > bounds[t]);
    return at.length === 1 ? at[0].name : null;
  };
  const placesOf = (cuts) => cuts.map((cut) => study.at[cut]).join(", ") || "none";
  const figure = { latency: (f) => seconds(f.latency), cost: (f) => usd(f.cost), energy: (f) => joules(f.energy),
    throughput: (f) => rate(f.throughput), weighted: (f) => short(f.weighted) };
  const LIMITS = { latency: "the deadline", cost: "the budget", energy: "the energy limit",
    throughput: "what a tier or link sustains", memory: "a tier's memory", rules: "a rule or limit of a link" };

  const verdict = (found, singles) => {
    if (!found) return "No plan keeps to the limits with these settings.";
    const name = alone(found.cuts);
    const least = Math.min(...singles.filter((one) => !one.broken.length)
      .map((one) => pricing.value(one, aim.value)));
    const gain = least / pricing.value(found, aim.value);
    const what = figure[aim.value](found);
    if (name !== null) return `Best: all on ${name}, ${what}.`;
    const cuts = `Best: cut at ${placesOf(found.cuts)}, ${what}`;
    if (!Number.isFinite(gain)) return `${cuts}; no single tier keeps to the limits.`;
    if (gain < 1.01) return `${cuts}, less than 1% better than a single tier: not worth a split.`;
    return `${cuts}, ${short(gain)} times as good as the best single tier.`;
  };

  // A request's time as bars in a row: what each tier computes and each link sends.
  const bars = (plans) => {
    const width = Math.max(by("bars").clientWidth, 280);
    const longest = Math.max(...plans.map(([, f]) => f.latency).filter(Number.isFinite)) || 1;
    const height = plans.length * 46;
    const drawn = element("svg", { svg: 1, viewBox: `0 0 ${width} ${height}`, width, height, role: "img",
      "aria-label": plans.map(([name, f]) => `${name}: ${seconds(f.latency)}`).join("; ") });
    plans.forEach(([name, figures], row) => {
      drawn.append(element("text", { svg: 1, x: 2, y: row * 46 + 14, class: "said" },
        `${name}: ${seconds(figures.latency)}`));
      let x = 2;
      figures.stages.forEach((stage, t) => {
        const parts = [[stage.seconds, `fill c${t % 8}`, study.tiers[t].name]];
        if (figures.links[t]) parts.push([figures.links[t].seconds, "sent", "link"]);
        for (const [took, kind, said] of parts) {
          const long = took / longest * (width - 4);
          if (!(long > 0)) continue;
          const part = element("rect", { svg: 1, x, y: row * 46 + 20, width: Math.max(long, 1), height: 18, class: kind });
          part.append(element("title", { svg: 1 }, `${said}: ${seconds(took)}`));
          drawn.append(part);
          if (long > said.length * 8 + 8) {
            drawn.append(element("text", { svg: 1, x: x + 4, y: row * 46 + 34,
              class: kind === "sent" ? "said" : "on-fill" }, said));
          }
          x += long;
        }
      });
    });
    by("bars").replaceChildren(drawn);
  };

  // The cut where it is now, in the chart along the order and in the graph.
  const mark = (cuts) => {
    const size = study.size;
    for (const old of document.querySelectorAll(".moved")) old.remove();
    for (const at of new Set(cuts.map((cut) => study.at[cut]))) {
      for (const chart of document.querySelectorAll("[data-cut-left]")) {
        const { cutLeft, cutRight, cutTop, cutBottom } = chart.dataset;
        const x = Number(cutLeft) + at / size * (cutRight - cutLeft);
        chart.append(element("line", { svg: 1, x1: x, x2: x, y1: cutTop, y2: cutBottom, class: "moved" }));
      }
      const row = at < size ? rowOf(at) : null;
      if (row) {
        const y = row.querySelector("circle").cy.baseVal.value - 10;
        svg.append(element("line", { svg: 1, x1: 0, x2: svg.viewBox.baseVal.width, y1: y, y2: y, class: "moved" }));
      }
    }
  };

  const show = () => {
    sliders.forEach(say);
    const settings = settingsNow();
    const found = pricing.best(study, settings, aim.value);
    const singles = pricing.singles(study, settings);
    const plan = pricing.evaluate(study, settings, planned);
    by("best").textContent = verdict(found, singles);
    shown = found;
    const others = kept.map((cuts, at) => [`kept ${at + 1}`, pricing.evaluate(study, settings, cuts)]);
    const all = [...(found ? [["best with these settings", found]] : []), ["the plan of this page", plan], ...others,
      ...singles.map((one, t) => [`all on ${study.tiers[t].name}`, one])];
    bars(all.slice(0, (found ? 2 : 1) + others.length));
    by("plans").replaceChildren(table("Plans under these settings.",
      ["plan", "cuts at", ">latency", ">cost", ">throughput", ">energy", "breaks"],
      all.map(([name, f]) => [name, placesOf(f.cuts), seconds(f.latency), usd(f.cost), rate(f.throughput),
        joules(f.energy), f.broken.map((one) => LIMITS[one]).join(", ")])));
    by("crossing").replaceChildren(...(found ? [...new Set(found.cuts)] : []).map((cut) =>
      link(`What crosses cut ${study.at[cut]}`, () => { showCut(study.at[cut]); by("picked").scrollIntoView(); })));
    if (found) mark(found.cuts);
  };
  let waiting = false;
  const soon = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; show(); });
  };
  form.addEventListener("input", soon);
  by("reset").addEventListener("click", () => {
    kept = [];
    for (const slider of sliders) slider.value = slider.defaultValue;
    for (const option of aim.options) option.selected = option.defaultSelected;
    by("back").checked = by("back").defaultChecked;
    soon();
  });
  by("keep").addEventListener("click", () => { if (shown) { kept = [...kept.slice(-4), shown.cuts]; soon(); } });
  addEventListener("resize", soon);
  show();
})();
