"use strict";
// Zooming, dragging and finding in the graph, which scrolls without any of this.
(() => {
  const box = document.getElementById("graph");
  const svg = document.getElementById("graph-svg");
  if (!box || !svg) return;
  const width = svg.viewBox.baseVal.width;
  const height = svg.viewBox.baseVal.height;
  const FAR = 0.5; // below it text is too small to read, and left out
  let scale = 1;
  // Nothing gets narrower than the box needs: a deep graph would become a hair.
  const across = () => Math.max(scale, Math.min(1, box.clientWidth / width));

  // Zooms about a point of the box, so that what is there stays there.
  const zoom = (wanted, x = box.clientWidth / 2, y = box.clientHeight / 2) => {
    const least = Math.min(1, box.clientHeight / height);
    const next = Math.min(4, Math.max(least, wanted));
    const left = (box.scrollLeft + x) / across();
    const top = (box.scrollTop + y) / scale;
    scale = next;
    svg.setAttribute("width", width * across());
    svg.setAttribute("height", height * scale);
    svg.classList.toggle("far", scale < FAR);
    box.scrollLeft = left * across() - x;
    box.scrollTop = top * scale - y;
  };
  const actions = {
    in: () => zoom(scale * 1.4),
    out: () => zoom(scale / 1.4),
    reset: () => zoom(1),
    whole: () => zoom(0),
  };
  const keys = { "+": "in", "=": "in", "-": "out", "0": "reset", "w": "whole" };

  document.getElementById("tools").hidden = false;
  for (const button of document.querySelectorAll("[data-zoom]")) {
    button.addEventListener("click", () => actions[button.dataset.zoom]());
  }
  box.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
    event.preventDefault();
    actions[keys[event.key]]();
  });
  box.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return; // a wheel alone scrolls
    event.preventDefault();
    const place = box.getBoundingClientRect();
    zoom(scale * Math.exp(-event.deltaY / 300), event.clientX - place.left, event.clientY - place.top);
  }, { passive: false });

  // A mouse drags; fingers scroll by themselves.
  box.addEventListener("pointerdown", (event) => {
    if (event.pointerType !== "mouse" || event.button !== 0 || event.target === box) return;
    const start = { x: event.clientX + box.scrollLeft, y: event.clientY + box.scrollTop };
    const drag = (moved) => {
      box.classList.add("grabbed");
      box.scrollLeft = start.x - moved.clientX;
      box.scrollTop = start.y - moved.clientY;
    };
    const drop = () => {
      box.classList.remove("grabbed");
      removeEventListener("pointermove", drag);
    };
    addEventListener("pointermove", drag);
    addEventListener("pointerup", drop, { once: true });
    addEventListener("pointercancel", drop, { once: true });
  });

  // Enter goes to the next row whose words hold what was typed.
  const find = document.getElementById("find");
  const found = document.getElementById("found");
  const rows = [...svg.querySelectorAll(".row")];
  let hits = [];
  let at = -1;
  const show = () => {
    rows.forEach((row) => row.classList.remove("hit"));
    if (!find.value) { found.textContent = ""; return; }
    if (!hits.length) { found.textContent = "not found"; return; }
    hits[at].classList.add("hit");
    const where = hits[at].getBoundingClientRect();
    const place = box.getBoundingClientRect();
    box.scrollTop += where.top - place.top - box.clientHeight / 2;
    found.textContent = `${at + 1} of ${hits.length}`;
    find.dispatchEvent(new CustomEvent("found", { detail: hits[at] }));
  };
  find.addEventListener("input", () => {
    const wanted = find.value.toLowerCase();
    hits = wanted ? rows.filter((row) => row.textContent.toLowerCase().includes(wanted)) : [];
    at = 0;
    show();
  });
  find.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !hits.length) return;
    event.preventDefault();
    at = (at + (event.shiftKey ? hits.length - 1 : 1)) % hits.length;
    show();
  });
})();
