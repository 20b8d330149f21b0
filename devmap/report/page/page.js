// The treemap of a page: layout, zoom, search, and what is told of the cell under the pointer or the focus.
// Data: {devices: [[name, colour]], places: [[home, executes]], runs: [[sentence]], tree: node}
// node: [name, class, bytes, place, run, children, note]; place and run are -1 for a module that is spread.
"use strict";
(() => {
  const holder = document.getElementById("plan-data");
  const map = document.getElementById("map");
  if (!holder || !map) return;
  const { devices, places, runs, tree } = JSON.parse(holder.textContent);
  const search = document.getElementById("search");
  const count = document.getElementById("count");
  const trail = document.getElementById("trail");
  const found = document.getElementById("found");
  const told = document.getElementById("told");
  const [NAME, KIND, BYTES, PLACE, RUN, CHILDREN, NOTE] = [0, 1, 2, 3, 4, 5, 6];
  const HEAD = 17, MOST_CELLS = 900, MOST_FOUND = 12;

  // Paths and parents once: the tree itself holds short names.
  const nodes = [];
  (function walk(data, parent, path) {
    const node = { data, parent, path, children: [] };
    nodes.push(node);
    for (const child of data[CHILDREN] || []) {
      const childPath = path ? path + "." + child[NAME] : child[NAME];
      node.children.push(walk(child, node, childPath));
    }
    return node;
  })(tree, null, "");
  let root = nodes[0];

  const size = (bytes) => {
    for (const [unit, scale] of [["TB", 1e12], ["GB", 1e9], ["MB", 1e6], ["KB", 1e3]])
      if (bytes >= scale) return (bytes / scale).toFixed(1) + " " + unit;
    return bytes + " B";
  };
  const paint = (place) => {
    const [home, executes] = places[place];
    const ground = "var(--" + devices[home][1] + ")";
    if (home === executes) return ground;
    return "repeating-linear-gradient(45deg, " + ground + " 0 7px, var(--" + devices[executes][1] + ") 7px 11px)";
  };
  const where = (place) => {
    if (place < 0) return "spread over several devices";
    const [home, executes] = places[place];
    return home === executes ? devices[home][0] : devices[home][0] + ", streamed to and run on " + devices[executes][0];
  };

  // Squarified treemap: M. Bruls, K. Huizing, J. van Wijk, "Squarified Treemaps", VisSym 2000.
  function squarify(children, x, y, width, height, place) {
    const items = children.filter((child) => child.data[BYTES] > 0)
      .sort((one, other) => other.data[BYTES] - one.data[BYTES]);
    let left = items.reduce((sum, item) => sum + item.data[BYTES], 0);
    let at = 0;
    while (at < items.length && width > 0.5 && height > 0.5) {
      const short = Math.min(width, height), scale = (width * height) / left;
      let end = at, row = 0, worst = Infinity;
      while (end < items.length) {
        const area = items[end].data[BYTES] * scale, sum = row + area;
        const largest = items[at].data[BYTES] * scale;
        const next = Math.max((short * short * largest) / (sum * sum), (sum * sum) / (short * short * area));
        if (next > worst) break;
        worst = next; row = sum; end++;
      }
      const thick = row / short;
      let along = 0;
      for (; at < end; at++) {
        const area = items[at].data[BYTES] * scale, length = area / thick;
        if (width >= height) place(items[at], x, y + along, thick, length);
        else place(items[at], x + along, y, length, thick);
        along += length;
        left -= items[at].data[BYTES];
      }
      if (width >= height) { x += thick; width -= thick; } else { y += thick; height -= thick; }
    }
  }

  let cells = [];
  function cell(node, x, y, width, height, isGroup) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "cell" + (isGroup ? " group" : "") + (node.children.length ? " deeper" : "");
    button.style.cssText = `left:${x}px;top:${y}px;width:${width}px;height:${height}px`;
    if (!isGroup && node.data[PLACE] >= 0) button.style.background = paint(node.data[PLACE]);
    if (!isGroup && node.data[PLACE] < 0) button.style.background = "var(--streaming)";
    button.setAttribute("aria-label", `${node.path || "whole model"}, ${size(node.data[BYTES])}, ${where(node.data[PLACE])}`);
    button.dataset.path = node.path;
    if (width > 34 && height > 15) {
      const label = document.createElement("span");
      label.textContent = node.data[NAME] || "whole model";
      button.append(label);
    }
    button.addEventListener("pointerenter", () => tell(node));
    button.addEventListener("focus", () => tell(node));
    if (node.children.length) button.addEventListener("click", () => show(node, true));
    map.append(button);
    cells.push([node, button]);
  }
  function fill(node, x, y, width, height, alone) {
    // Of a module with one or two children there is little to see before these are opened too.
    const few = alone && node.children.length < 3;
    squarify(node.children, x, y, width, height, (child, left, top, wide, high) => {
      // A module that lies on one device is one cell until the reader goes into it; one that is spread is opened.
      const opens = child.children.length && wide > 50 && high > HEAD + 14 && cells.length < MOST_CELLS &&
        (child.data[PLACE] < 0 || few);
      cell(child, left, top, wide, high, opens);
      if (opens) fill(child, left + 2, top + HEAD, wide - 4, high - HEAD - 2, few);
    });
  }
  function draw() {
    map.textContent = "";
    cells = [];
    fill(root, 0, 0, map.clientWidth, map.clientHeight, true);
    if (!cells.length) map.textContent = "Nothing below it has bytes of its own.";
    mark();
  }
  function crumbs() {
    trail.textContent = "";
    const line = [];
    for (let node = root; node; node = node.parent) line.unshift(node);
    for (const node of line) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = node.data[NAME] || "whole model";
      button.addEventListener("click", () => show(node, true));
      if (node === root) button.setAttribute("aria-current", "true");
      trail.append(button);
    }
  }
  function show(node, focus) {
    root = node.children.length ? node : node.parent || node;
    crumbs(); draw(); tell(node);
    if (focus && cells.length) cells[0][1].focus();
  }
  function line(text, className) {
    const paragraph = document.createElement("p");
    paragraph.textContent = text;
    if (className) paragraph.className = className;
    told.append(paragraph);
  }
  function tell(node) {
    told.textContent = "";
    line(node.path || "whole model", "path");
    line(`${node.data[KIND] || "tensor"}, ${size(node.data[BYTES])} (${node.data[BYTES].toLocaleString("en")} bytes), ${where(node.data[PLACE])}`);
    if (node.data[NOTE]) line(node.data[NOTE]);
    const sentences = node.data[RUN] >= 0 ? runs[node.data[RUN]] : [];
    if (!sentences.length) return;
    line("Why its run lies there:", "soft");
    const list = document.createElement("ul");
    for (const sentence of sentences) {
      const item = document.createElement("li");
      item.textContent = sentence;
      list.append(item);
    }
    told.append(list);
  }

  let hits = new Set();
  const isHit = (node) => hits.has(node);
  const holdsHit = (node) => isHit(node) || node.children.some(holdsHit);
  const insideHit = (node) => { for (let at = node; at; at = at.parent) if (isHit(at)) return true; return false; };
  function mark() {
    for (const [node, button] of cells) {
      const hit = hits.size > 0 && (insideHit(node) || holdsHit(node));
      button.classList.toggle("hit", hit && !button.classList.contains("group"));
      button.classList.toggle("dim", hits.size > 0 && !hit);
    }
  }
  function look() {
    const wanted = search.value.trim().toLowerCase();
    const all = wanted ? nodes.filter((node) => node.path.toLowerCase().includes(wanted) || node.data[KIND].toLowerCase() === wanted) : [];
    // Of a module and what is below it only the module is listed: its path is in all of theirs.
    const every = new Set(all);
    const top = all.filter((node) => !every.has(node.parent));
    hits = new Set(top);
    found.textContent = "";
    for (const node of top.slice(0, MOST_FOUND)) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = `${node.path || "whole model"}  ${size(node.data[BYTES])}`;
      button.addEventListener("click", () => show(node, true));
      found.append(button);
    }
    count.value = wanted ? `${top.length.toLocaleString("en")} found` : "";
    mark();
  }
  search.addEventListener("input", look);
  search.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && hits.size) { event.preventDefault(); show([...hits][0], true); }
  });
  map.addEventListener("keydown", (event) => {
    const at = cells.findIndex(([, button]) => button === document.activeElement);
    if ((event.key === "Escape" || event.key === "Backspace") && root.parent) { event.preventDefault(); show(root.parent, true); }
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step && cells.length) { event.preventDefault(); cells[(at + step + cells.length) % cells.length][1].focus(); }
  });
  let waiting = 0;
  new ResizeObserver(() => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(draw); }).observe(map);
  show(nodes[0], false);
})();
