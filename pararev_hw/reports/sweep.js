"use strict";
// A sweep's page: ranges on parallel coordinates, two points beside each other, why a point costs what it costs.
(() => {
  const holder = document.getElementById("sweep-data");
  if (!holder) return;
  const data = JSON.parse(holder.textContent);
  const points = new Map(data.points.map((p) => [`row-${p.row}`, p]));
  const marks = [...document.querySelectorAll("[data-task^='row-']")];
  const status = document.getElementById("range-status");
  const make = (tag, text, className) => {
    const e = document.createElement(tag);
    if (text !== undefined) e.textContent = text;
    if (className) e.className = className;
    return e;
  };
  // Ranges: a part of an axis, drawn with the pointer or moved with the arrow keys. What lies outside fades.
  const ranges = new Map();
  const zones = [...document.querySelectorAll("[data-axis]")];
  const box = (zone) => ["x", "y", "width", "height"].map((k) => Number(zone.getAttribute(k)));
  const outside = (p) => [...ranges].some(([axis, [low, high]]) => p.at[axis] < low - 1e-9 || p.at[axis] > high + 1e-9);
  const apply = () => {
    for (const mark of marks) {
      const p = points.get(mark.dataset.task);
      if (p) mark.classList.toggle(mark.tagName === "TR" ? "out" : "dim", outside(p));
    }
    for (const zone of zones) {
      const range = ranges.get(Number(zone.dataset.axis)), [x, y, width, height] = box(zone);
      const shown = zone.nextElementSibling;
      const [low, high] = range ?? [0, 0];
      for (const [k, v] of [["x", x + width / 4], ["width", width / 2], ["y", y + (1 - high) * height], ["height", (high - low) * height]]) shown.setAttribute(k, v);
    }
    const inside = data.points.filter((p) => !outside(p)).length;
    status.textContent = ranges.size ? `${inside} of the ${data.points.length} configurations drawn are within the ranges` : "";
  };
  const place = (zone, event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(zone.getScreenCTM().inverse());
    const [, y, , height] = box(zone);
    return Math.min(1, Math.max(0, 1 - (at.y - y) / height));
  };
  for (const zone of zones) {
    const axis = Number(zone.dataset.axis);
    let from = null;
    zone.addEventListener("pointerdown", (event) => {
      event.stopPropagation();
      from = place(zone, event);
      try { zone.setPointerCapture(event.pointerId); } catch { /* a pointer that is gone */ }
    });
    zone.addEventListener("pointermove", (event) => {
      if (from === null) return;
      const to = place(zone, event);
      ranges.set(axis, [Math.min(from, to), Math.max(from, to)]);
      apply();
    });
    zone.addEventListener("pointerup", (event) => {
      if (from !== null && Math.abs(place(zone, event) - from) < 0.01) ranges.delete(axis);
      from = null;
      apply();
    });
    zone.addEventListener("keydown", (event) => {
      const step = { ArrowUp: 0.05, ArrowDown: -0.05 }[event.key];
      if (event.key === "Escape") ranges.delete(axis);
      else if (step) {
        const [low, high] = ranges.get(axis) ?? [0, 1];
        const moved = event.shiftKey ? [Math.max(0, Math.min(high, low + step)), high] : [low, Math.min(1, Math.max(low, high + step))];
        ranges.set(axis, moved);
      } else return;
      event.preventDefault();
      event.stopPropagation();
      apply();
    });
  }
  document.getElementById("clear-ranges").addEventListener("click", () => { ranges.clear(); apply(); });
  // Two points side by side: a click, or Enter on a row of the table.
  const panel = document.getElementById("pinned");
  let pinned = data.first.filter((row) => points.has(`row-${row}`)).slice(0, 2);
  const table = (caption, heads, rows) => {
    const wrap = make("div", undefined, "scroll"), t = make("table"), body = make("tbody");
    t.append(make("caption", caption));
    const head = make("tr");
    heads.forEach((words, k) => { const th = make("th", words, k ? "num" : ""); th.scope = "col"; head.append(th); });
    const top = make("thead");
    top.append(head);
    for (const cells of rows) {
      const tr = make("tr");
      cells.forEach((words, k) => { const td = make("td", words, k ? "num" : ""); if (heads[k]) td.dataset.label = heads[k]; tr.append(td); });
      body.append(tr);
    }
    t.append(top, body);
    wrap.append(t);
    return wrap;
  };
  const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
  const why = (p) => {
    const part = make("div", undefined, "why"), e = data.why[p.row];
    part.append(make("h3", `Why ${p.name} costs what it costs`));
    if (!e) {
      part.append(make("p", `Not worked out for this point: pararev-hw report --sweep DIR --row ${p.row} -o out/ gives its full report.`));
      return part;
    }
    part.append(table("Time of all cores", ["", "share"], e.time.map(([name, share]) => [name, percent(share)])));
    if (e.layers.length) part.append(table("Layers that take most of the busy time", ["layer", "limited by", "share"], e.layers.map((l) => [l.name, l.limit, percent(l.share)])));
    if (e.roofline) part.append(roofline(e));
    part.append(table("Energy by level", ["", "energy"], e.energy));
    if (e.neighbours.length) part.append(table("One step aside, all else as it is", ["parameter", ...data.objectives], e.neighbours));
    return part;
  };
  const roofline = (e) => {
    const space = "http://www.w3.org/2000/svg", wide = 460, high = 240, left = 56, low = 200;
    const svg = document.createElementNS(space, "svg");
    svg.setAttribute("viewBox", `0 0 ${wide} ${high}`);
    svg.setAttribute("class", "roof");
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", "Roofline: operations per second over operations per byte of main memory, a dot for each layer");
    const xs = e.roofline.points.map((p) => p[0]), ys = [e.roofline.peak, ...e.roofline.points.map((p) => p[1])];
    const ridge = e.roofline.peak / e.roofline.bandwidth;
    const span = (values) => [Math.log10(Math.min(...values)) - 0.2, Math.log10(Math.max(...values)) + 0.2];
    const [x0, x1] = span([...xs, ridge]), [y0, y1] = span(ys);
    const x = (v) => left + (Math.log10(v) - x0) / (x1 - x0) * (wide - left - 16);
    const y = (v) => low - (Math.log10(v) - y0) / (y1 - y0) * (low - 20);
    const add = (name, attributes, text) => {
      const node = document.createElementNS(space, name);
      for (const [k, v] of Object.entries(attributes)) node.setAttribute(k, v);
      if (text) { const title = document.createElementNS(space, name === "text" ? "tspan" : "title"); title.textContent = text; node.append(title); }
      svg.append(node);
    };
    const foot = Math.max(10 ** x0, 10 ** y0 / e.roofline.bandwidth);
    add("path", { d: `M${x(foot)} ${y(foot * e.roofline.bandwidth)}L${x(ridge)} ${y(e.roofline.peak)}H${wide - 16}`, class: "roofline" });
    e.roofline.points.forEach(([a, b, name, share]) => add("circle", { cx: x(a), cy: y(b), r: 3 + 8 * Math.sqrt(share), class: "layer" }, name));
    for (let k = Math.ceil(x0); k <= x1; k++) add("text", { x: x(10 ** k), y: low + 18, class: "mid" }, `1e${k}`);
    for (let k = Math.ceil(y0); k <= y1; k++) add("text", { x: left - 6, y: y(10 ** k) + 4, class: "end" }, `1e${k}`);
    add("text", { x: left, y: 12 }, "MACs and accumulates per second, one core");
    add("text", { x: wide - 16, y: high - 4, class: "end" }, "MACs and accumulates per byte of main memory");
    return svg;
  };
  const show = () => {
    for (const mark of marks) mark.classList.toggle("pin", pinned.includes(points.get(mark.dataset.task)?.row));
    const shown = pinned.map((row) => points.get(`row-${row}`));
    const rows = data.axes.map((axis, k) => {
      const values = shown.map((p) => p.value[k]);
      const [a, b] = values, ratio = typeof a === "number" && typeof b === "number" && a ? `${(b / a).toPrecision(3)}x` : "";
      return [axis, ...shown.map((p) => p.shown[k]), ...(shown.length > 1 ? [ratio] : [])];
    });
    const heads = ["", ...shown.map((p) => p.name), ...(shown.length > 1 ? ["second / first"] : [])];
    panel.replaceChildren(...(shown.length ? [table("Pinned configurations", heads, rows), ...(() => { const both = make("div", undefined, "pair"); both.append(...shown.map(why)); return [both]; })()] : []));
  };
  const toggle = (task) => {
    const p = points.get(task);
    if (!p) return;
    pinned = pinned.includes(p.row) ? pinned.filter((row) => row !== p.row) : [...pinned, p.row].slice(-2);
    show();
  };
  document.addEventListener("click", (event) => {
    const mark = event.target.closest("[data-task^='row-']");
    if (mark) toggle(mark.dataset.task);
  });
  for (const row of document.querySelectorAll("tr[data-task^='row-']")) {
    row.tabIndex = 0;
    row.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      toggle(row.dataset.task);
    });
  }
  show();
  apply();
})();
