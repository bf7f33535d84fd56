/** The page for trying a split out: what goes in, where it is cut, the answer, and where the time went. */
import { pictureOf, readNpy, tensorOf } from "./inputs.js";
import { TYPES } from "./wire.js";

const MOST_SHOWN = 5;
const $ = (id) => document.getElementById(id);
const worker = new Worker("worker.js", { type: "module" });
const waiting = new Map();
let site = null;
let picture = null;
/** Tensors that a file gave, by input. */
const given = new Map();

function ask(call, what = {}) {
  const id = crypto.randomUUID?.() ?? String(Math.random());
  worker.postMessage({ id, call, given: what });
  return new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
}

worker.onmessage = ({ data }) => {
  if (data.event === "reach") showReach(data.reach < site.links ? data.reason : null);
  if (data.event === "progress") showProgress(data.share, data.what);
  const asked = waiting.get(data.id);
  if (!asked) return;
  waiting.delete(data.id);
  if (data.error) asked.reject(data.error);
  else asked.resolve(data.ok);
};
worker.onerror = (event) => {
  const error = { name: "Error", message: event.message || "the worker cannot be started" };
  for (const { reject } of waiting.values()) reject(error);
  waiting.clear();
};

function element(tag, { text, className, children = [], ...rest } = {}) {
  const made = Object.assign(document.createElement(tag), rest);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  made.append(...children);
  return made;
}

const bytes = (nbytes) => {
  if (nbytes === null) return "an unknown number of bytes";
  const [unit, size] = nbytes >= 1e6 ? ["MB", 1e6] : nbytes >= 1e3 ? ["kB", 1e3] : ["bytes", 1];
  return `${size === 1 ? nbytes : (nbytes / size).toPrecision(3)} ${unit}`;
};
const ms = (seconds) => (seconds >= 0.0995 ? `${(seconds * 1e3).toFixed(0)} ms` : `${(seconds * 1e3).toPrecision(2)} ms`);

/** Three digits. @param {number} value */
const short = (value) => String(Number(value.toPrecision(3)));

async function start() {
  try {
    site = await ask("open", { token: $("token").value || undefined });
  } catch (error) {
    $("line").replaceChildren(element("span", { className: "bad", text: error.message }));
    return;
  }
  $("model").textContent = site.manifest.model.name;
  document.title = `${site.manifest.model.name}: a browser as a tier`;
  const names = site.tiers.map((tier, at) => (at === site.mine ? `${tier} (this page)` : tier));
  $("line").textContent = `${site.size} nodes over ${names.join(" → ")}`;
  showDevice();
  showReach(site.down);
  showInputs();
  showCuts();
  $("run").disabled = false;
  $("measure").disabled = false;
}

function showDevice(threads, backend) {
  const why = site.isIsolated ? "" : ": the page is not isolated from others, so that threads are off (serve it by `serve --site` over https, or from this machine)";
  const counted = threads ? `, ${threads} thread${threads > 1 ? "s" : ""}` : site.isIsolated ? "" : ", 1 thread";
  const gpu = site.hasGpu ? "the browser has WebGPU, and no adapter for it" : "the browser has no WebGPU";
  const used = backend ?? site.backend;
  const named = used === "webgpu" ? "WebGPU" : `WASM (${site.backend === "webgpu" ? "WebGPU failed" : gpu})`;
  $("device").textContent = `onnxruntime-web ${site.manifest.version} on ${named}${counted}${why}`;
}

function showReach(reason) {
  const name = site.tiers[site.isBottom ? 1 : 0];
  if (!site.url || site.links === 0) {
    $("server").textContent = "none: all of the model runs here";
    return;
  }
  $("server").replaceChildren(`${name} at ${site.url}, `, reason === null ? "ready" : element("span", { className: "bad", text: `down: ${reason}` }));
  if (reason && /token/.test(reason)) $("token-row").hidden = false;
}

function showInputs() {
  const { inputs: ports, bindings } = site.manifest;
  $("tensors").replaceChildren();
  for (const port of ports) {
    const place = picture ? null : pictureOf(port, bindings);
    if (place) {
      picture = { port, place };
      $("picture").hidden = false;
      Object.assign($("canvas"), { width: place.width, height: place.height });
      $("scaling").disabled = port.dtype === "uint8";
    }
    if (picture?.port.name === port.name) continue;
    const file = element("input", { type: "file", accept: ".npy" });
    const note = element("p", { className: "note", text: "made up, until a file is given" });
    file.onchange = async () => {
      try {
        const tensor = readNpy(await file.files[0].arrayBuffer(), TYPES);
        given.set(port.name, tensor);
        note.textContent = `${tensor.dtype} [${tensor.shape.join(", ")}]`;
      } catch (error) {
        given.delete(port.name);
        note.textContent = error.message;
      }
    };
    const shape = port.shape ? port.shape.map((size) => size ?? "?").join(", ") : "?";
    $("tensors").append(element("label", { text: `${port.name}: ${port.dtype} [${shape}] `, children: [file] }), note);
  }
  if (!isSecureContext) {
    $("camera").disabled = true;
    $("camera-note").textContent = "A browser lends its camera to pages that came by https alone; a picture can be taken or chosen all the same.";
  }
}

function showCuts() {
  const slider = $("cut");
  slider.max = String(site.choices.length - 1);
  const planned = site.choices.findIndex(({ cuts }) => cuts.join() === site.cuts.join());
  slider.value = String(Math.max(0, planned));
  slider.disabled = site.choices.length < 2;
  slider.oninput = () => {
    const { cuts, nbytes } = site.choices[slider.value];
    const at = site.isBottom ? cuts[0] : cuts.at(-1);
    const here = site.isBottom ? at : site.size - at;
    const plan = cuts.join() === site.cuts.join() ? " This is the plan's cut." : "";
    const crosses = nbytes === 0 ? "nothing crosses" : `${bytes(nbytes)} cross`;
    const text = `${here} of ${site.size} nodes run here; ${crosses}.${plan}`;
    $("cut-text").textContent = text;
    slider.setAttribute("aria-valuetext", text);
  };
  slider.oninput();
}

/** Draws what covers the input's frame. */
function draw(source, width, height) {
  const canvas = $("canvas");
  const scale = Math.max(canvas.width / width, canvas.height / height);
  const [w, h] = [width * scale, height * scale];
  canvas.getContext("2d").drawImage(source, (canvas.width - w) / 2, (canvas.height - h) / 2, w, h);
  canvas.dataset.drawn = "true";
  canvas.hidden = Boolean($("video").srcObject);
}

$("file").onchange = async () => {
  const [chosen] = $("file").files;
  if (!chosen) return;
  try {
    const bitmap = await createImageBitmap(chosen);
    draw(bitmap, bitmap.width, bitmap.height);
    $("camera-note").textContent = chosen.name;
  } catch {
    $("camera-note").textContent = `${chosen.name} is no picture that this browser reads`;
  }
};

$("camera").onclick = async () => {
  const video = $("video");
  if (video.srcObject) {
    video.srcObject.getTracks().forEach((track) => track.stop());
    Object.assign(video, { srcObject: null, hidden: true });
    $("canvas").hidden = !$("canvas").dataset.drawn;
    $("camera").textContent = "Use the camera";
    return;
  }
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    await video.play();
    video.hidden = false;
    $("canvas").hidden = true;
    $("camera").textContent = "Stop the camera";
  } catch (error) {
    $("camera-note").textContent = `The camera cannot be used: ${error.message}`;
  }
};

async function inputs() {
  const { inputs: ports, bindings } = site.manifest;
  const video = $("video");
  if (video.srcObject) draw(video, video.videoWidth, video.videoHeight);
  const left = ports.filter(({ name }) => !given.has(name));
  const values = { ...(await ask("madeUp", { ports: left, bindings })), ...Object.fromEntries(given) };
  const canvas = $("canvas");
  if (picture && canvas.dataset.drawn) {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    values[picture.port.name] = tensorOf(data, picture.port.dtype, picture.place, $("scaling").value);
  }
  return values;
}

$("run").onclick = async () => {
  $("run").disabled = true;
  try {
    const { cuts } = site.choices[$("cut").value];
    const answer = await ask("infer", { inputs: await inputs(), cuts, isFixed: $("fixed").checked });
    showAnswer(answer);
    showTimes(answer, cuts);
    showDevice(answer.threads, answer.backend);
    showKept(answer.kept);
    $("notes").textContent = answer.notes.join(" ");
    if (picture && !$("canvas").dataset.drawn) $("notes").textContent += " The picture was made up: none was chosen.";
  } catch (error) {
    $("answer").replaceChildren(element("p", { className: "bad", text: error.message }));
    if (error.status === 401) $("token-row").hidden = false;
  }
  $("run").disabled = false;
};

$("token").onchange = start;

$("forget").onclick = async () => {
  await ask("forget");
  showKept(null);
};

/** What a model with states keeps from one request to the next. */
function showKept(kept) {
  $("forget").hidden = !kept;
  $("kept").textContent = kept ? `Request ${kept.step} of a sequence, whose states go from one to the next: ${bytes(kept.nbytes)} are kept here.` : "";
}

function showAnswer({ outputs }) {
  const shown = Object.entries(outputs).filter(([, tensor]) => tensor).flatMap(([name, { dtype, shape, data }]) => {
    const rows = [...topOf(dtype, data)].map(([index, value]) => element("tr", {
      children: [element("th", { text: index, scope: "row" }), element("td", { text: value })],
    }));
    const title = element("h3", { text: `${name}: ${dtype} [${shape.join(", ")}]` });
    return [title, element("table", { children: rows })];
  });
  $("answer").replaceChildren(...shown);
}

/** The largest elements, or the first ones where there is no order to speak of. */
function topOf(dtype, data) {
  const all = Array.from(data, (value, index) => [index, value]);
  const isReal = dtype === "float" || dtype === "double";
  const chosen = isReal ? all.sort((a, b) => b[1] - a[1]) : all;
  return chosen.slice(0, MOST_SHOWN).map(([index, value]) => [`element ${index}`, isReal ? value.toPrecision(5) : String(value)]);
}

function showTimes({ tiers, hop, seconds, cuts, attempts }, wanted) {
  const mine = site.tiers[site.mine];
  const rows = tiers.flatMap(({ tier, queue_s, compute_s }) => [
    ...(queue_s > 5e-4 ? [[`${tier}: waiting, opening`, queue_s, tier === mine ? "" : "above"]] : []),
    [`${tier}: computing`, compute_s, tier === mine ? "" : "above"],
  ]);
  if (hop) {
    const above = site.isBottom ? tiers[1] : tiers[0];
    const wire = above && above.tier !== mine ? hop.total_s - above.total_s + (above.receive_s ?? 0) : hop.total_s;
    const row = [`link: ${bytes(hop.sent_nbytes)} up, ${bytes(hop.received_nbytes)} down`, Math.max(0, wire), "link"];
    rows.splice(site.isBottom ? rows.findIndex(([, , kind]) => kind === "above") : rows.length, 0, row);
  }
  const left = seconds - rows.reduce((sum, [, s]) => sum + s, 0);
  if (left > 5e-4) rows.push(["all else", left, ""]);
  const longest = Math.max(...rows.map(([, s]) => s));
  const shown = rows.map(([text, s, kind]) => {
    const bar = element("span", { className: `bar ${kind}` });
    bar.style.width = `${(100 * s) / longest}%`;
    return element("tr", { children: [element("th", { scope: "row", children: [text, bar] }), element("td", { text: ms(s) })] });
  });
  shown.push(element("tr", { className: "total", children: [element("th", { text: "in all", scope: "row" }), element("td", { text: ms(seconds) })] }));
  const other = cuts.join() === wanted.join() ? "" : ` in place of ${wanted.join()}`;
  const used = element("p", { className: "note", text: `Cut at ${cuts.join(", ")}${other}${attempts > 1 ? `, at attempt ${attempts}` : ""}.` });
  $("times").replaceChildren(element("table", { children: shown }), used);
}

function showProgress(share, what) {
  Object.assign($("progress"), { hidden: share >= 1, value: share });
  $("measured").textContent = share < 1 ? `Measuring: ${what}.` : "";
}

$("measure").onclick = async () => {
  $("measure").disabled = $("run").disabled = true;
  $("toml").hidden = true;
  showProgress(0, "opening the slices");
  try {
    const machine = { cores: navigator.hardwareConcurrency ?? 0, isolated: site.isIsolated ? "yes" : "no" };
    showProfile(await ask("profile", { budget_s: Number($("budget").value) || 20, machine }));
  } catch (error) {
    $("measured").replaceChildren(element("span", { className: "bad", text: error.message }));
    $("progress").hidden = true;
  }
  $("measure").disabled = $("run").disabled = false;
};

function showProfile(found) {
  const { tier, link, whole_s } = found;
  const name = `${tier}.profile.json`;
  const href = URL.createObjectURL(new Blob([`${JSON.stringify(found, null, 2)}\n`], { type: "application/json" }));
  const said = link ? `; the link does ${short(link.bandwidth_mbps)} Mbit/s with ${short(link.delay_ms)} ms each way` : "";
  $("measured").replaceChildren(`The whole model takes ${ms(whole_s)} here${said}. `, element("a", { href, download: name, text: `Save ${name}` }));
  const lines = ["[[tier]]", `name = "${tier}"`, `profile = "${name}"`, 'provider = "web"'];
  if (link) lines.push("", "[[link]]", `bandwidth_mbps = ${short(link.bandwidth_mbps)}`, `delay_ms = ${short(link.delay_ms)}`);
  Object.assign($("toml"), { textContent: lines.join("\n"), hidden: false });
}

start();
