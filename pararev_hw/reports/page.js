"use strict";
// Sorting and filtering of tables, zoom of pictures, one task shown everywhere. Without it the page is complete.
(() => {
  const collator = new Intl.Collator("en", { numeric: true });
  const status = document.getElementById("sort-status");
  const key = (row, column) => {
    const cell = row.cells[column];
    return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent;
  };
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a === "number") return 1; // "not known" sorts below every number
    if (typeof b === "number") return -1;
    return collator.compare(a, b);
  };
  const sort = (table, head) => {
    const heads = [...head.parentElement.cells];
    const column = heads.indexOf(head);
    const before = head.getAttribute("aria-sort");
    const order = before === "descending" ? "ascending" : before === "ascending" ? "descending"
      : head.classList.contains("num") ? "descending" : "ascending";
    const sign = order === "ascending" ? 1 : -1;
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [key(row, column), row]);
    rows.sort((a, b) => sign * compare(a[0], b[0]));
    body.append(...rows.map(([, row]) => row));
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
    if (status) status.textContent = `Sorted by ${head.textContent}, ${order}`;
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    for (const head of table.tHead.rows[0].cells) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      button.addEventListener("click", () => sort(table, head));
      head.replaceChildren(button);
    }
  }
  for (const hint of document.querySelectorAll(".hint")) hint.hidden = false;
  // A filter keeps the rows that hold its words, and dims the boxes of the other tasks.
  const boxes = [...document.querySelectorAll(".picture [data-task]")];
  for (const field of document.querySelectorAll("[data-filter]")) {
    const rows = [...document.getElementById(field.dataset.filter).tBodies[0].rows];
    field.addEventListener("input", () => {
      const words = field.value.toLowerCase().split(/\s+/);
      const gone = new Set();
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        const out = !words.every((w) => text.includes(w));
        row.classList.toggle("out", out);
        if (out && row.dataset.task) gone.add(row.dataset.task);
      }
      if (field.dataset.filter === "task-table") for (const b of boxes) b.classList.toggle("dim", gone.has(b.dataset.task));
    });
  }
  // The task under the pointer, in every picture and in the table.
  const places = new Map();
  for (const e of document.querySelectorAll("[data-task]")) {
    if (!places.has(e.dataset.task)) places.set(e.dataset.task, []);
    places.get(e.dataset.task).push(e);
  }
  const spans = [...document.querySelectorAll(".memory .span")].map((e) => [e, Number(e.getAttribute("x"))]);
  let hot = null;
  const show = (task) => {
    if (task === hot) return;
    for (const e of places.get(hot) ?? []) e.classList.remove("hot");
    for (const e of places.get(task) ?? []) e.classList.add("hot");
    hot = task;
    const timed = (places.get(task) ?? []).filter((e) => e.dataset.start).pop(); // the recommended schedule stands last
    for (const [span, left] of spans) {
      const scale = Number(span.dataset.pxPerS);
      span.setAttribute("x", left + (timed ? Number(timed.dataset.start) * scale : 0));
      span.setAttribute("width", timed ? Math.max(2, (timed.dataset.end - timed.dataset.start) * scale) : 0.01);
    }
  };
  document.addEventListener("pointerover", (event) => show(event.target.closest("[data-task]")?.dataset.task ?? null));
  // Zoom and pan: the part of the picture that its box shows.
  for (const bar of document.querySelectorAll(".zoom")) {
    const frame = bar.nextElementSibling, svg = frame.querySelector("svg");
    const whole = svg.viewBox.baseVal, all = { x: whole.x, y: whole.y, w: whole.width, h: whole.height };
    let view = { ...all };
    const set = (x, y, w) => {
      const width = Math.min(all.w, Math.max(all.w / 64, w)), height = width * all.h / all.w;
      view = { x: Math.min(Math.max(x, all.x), all.x + all.w - width), y: Math.min(Math.max(y, all.y), all.y + all.h - height), w: width, h: height };
      svg.setAttribute("viewBox", `${view.x} ${view.y} ${view.w} ${view.h}`);
    };
    const zoom = (factor, px = 0.5, py = 0.5) => {
      const width = factor ? view.w / factor : all.w;
      set(view.x + px * (view.w - width), view.y + py * (view.h - width * all.h / all.w), width);
    };
    const move = (dx, dy) => set(view.x + dx * view.w, view.y + dy * view.h, view.w);
    bar.hidden = false;
    bar.addEventListener("click", (event) => { if (event.target.dataset.zoom) zoom(Number(event.target.dataset.zoom)); });
    frame.addEventListener("wheel", (event) => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      const box = svg.getBoundingClientRect();
      zoom(event.deltaY < 0 ? 1.25 : 0.8, (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
    }, { passive: false });
    const keys = { "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(0.667), "0": () => zoom(0),
      ArrowLeft: () => move(-0.1, 0), ArrowRight: () => move(0.1, 0), ArrowUp: () => move(0, -0.1), ArrowDown: () => move(0, 0.1) };
    frame.addEventListener("keydown", (event) => {
      if (!keys[event.key] || event.ctrlKey || event.metaKey || (view.w === all.w && event.key.startsWith("Arrow"))) return;
      event.preventDefault();
      keys[event.key]();
    });
    svg.addEventListener("pointerdown", (event) => { if (view.w < all.w) svg.setPointerCapture(event.pointerId); });
    svg.addEventListener("pointermove", (event) => {
      if (!svg.hasPointerCapture(event.pointerId)) return;
      const box = svg.getBoundingClientRect();
      move(-event.movementX / box.width, -event.movementY / box.height);
    });
  }
  // Paper cannot unfold what is folded.
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => { d.open = true; }));
})();
