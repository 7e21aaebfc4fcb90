"use strict";
// A map of items: what it shows was computed beforehand; here it is drawn, searched and decided on.
// Names come from files: they are set as text, never as HTML.

const at = (id) => document.getElementById(id);
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#a59b00", "#882255", "#44aa99", "#6a3d9a"];
const GREY = "#9a9a9a";
const NONE = 0xffffffff;
const SLACK = 9; // pixels about a point in which the mouse finds it

let facts, xy, folderOf, classOf, splitOf, near, similar, trueness;
let view = { scale: 1, x: 0, y: 0 }; // of the map's unit square, in CSS pixels
let size = { w: 1, h: 1 };
let item = -1, hovered = -1, chosen = [], lit = null, path = null, drag = null;
const decisions = new Map(); // item -> {action, label}
let unsaved = false;

// ---- data

async function unpack() {
  const raw = atob(at("data").textContent.trim());
  const bytes = Uint8Array.from(raw, (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const buffer = await new Response(stream).arrayBuffer();
  const length = new DataView(buffer).getUint32(0, true);
  facts = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const kinds = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, f4: Float32Array };
  const read = (name) => {
    const [start, kind, count] = facts.arrays[name];
    const from = 4 + length + start;
    return new kinds[kind](buffer.slice(from, from + count * kinds[kind].BYTES_PER_ELEMENT));
  };
  [xy, folderOf, classOf, splitOf, near, similar, trueness] =
    ["xy", "folder", "class", "split", "near", "similar", "true"].map(read);
}

const className = (i) => (classOf[i] === NONE ? "" : facts.classes[classOf[i]]);
const pathOf = (i) => {
  const folder = facts.folders[folderOf[i]];
  return folder === "." ? facts.names[i] : `${folder}/${facts.names[i]}`.replace("//", "/");
};
const screen = (i) => [view.x + (xy[2 * i] / 65535) * view.scale, view.y + (1 - xy[2 * i + 1] / 65535) * view.scale];

// ---- the points: WebGL2, or a plain canvas where there is none

let paint;
function painter(canvas) {
  const gl = canvas.getContext("webgl2", { antialias: true, premultipliedAlpha: false });
  if (!gl) return plainPainter(canvas);
  const shader = (kind, source) => {
    const made = gl.createShader(kind);
    gl.shaderSource(made, `#version 300 es\nprecision highp float;\n${source}`);
    gl.compileShader(made);
    return made;
  };
  const program = gl.createProgram();
  gl.attachShader(program, shader(gl.VERTEX_SHADER, `
    in vec2 place; in vec4 colour; uniform vec3 view; uniform vec2 size; uniform float dot_; out vec4 c;
    void main() {
      vec2 p = (view.xy + vec2(place.x, 1.0 - place.y) * view.z) / size;
      gl_Position = vec4(p.x * 2.0 - 1.0, 1.0 - p.y * 2.0, 0, 1); gl_PointSize = dot_; c = colour;
    }`));
  gl.attachShader(program, shader(gl.FRAGMENT_SHADER, `
    in vec4 c; out vec4 o;
    void main() { if (length(gl_PointCoord - 0.5) > 0.5) discard; o = c; }`));
  gl.bindAttribLocation(program, 0, "place");
  gl.bindAttribLocation(program, 1, "colour");
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) return plainPainter(canvas);
  const places = gl.createBuffer(), tints = gl.createBuffer();
  gl.bindBuffer(gl.ARRAY_BUFFER, places);
  gl.bufferData(gl.ARRAY_BUFFER, xy, gl.STATIC_DRAW);
  gl.useProgram(program);
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA);
  const uniform = (name) => gl.getUniformLocation(program, name);
  const [uView, uSize, uDot] = ["view", "size", "dot_"].map(uniform);
  return {
    colours(bytes) {
      gl.bindBuffer(gl.ARRAY_BUFFER, tints);
      gl.bufferData(gl.ARRAY_BUFFER, bytes, gl.DYNAMIC_DRAW);
    },
    draw() {
      const ratio = devicePixelRatio || 1;
      gl.viewport(0, 0, canvas.width, canvas.height);
      gl.clearColor(0, 0, 0, 0);
      gl.clear(gl.COLOR_BUFFER_BIT);
      gl.bindBuffer(gl.ARRAY_BUFFER, places);
      gl.enableVertexAttribArray(0);
      gl.vertexAttribPointer(0, 2, gl.UNSIGNED_SHORT, true, 0, 0);
      gl.bindBuffer(gl.ARRAY_BUFFER, tints);
      gl.enableVertexAttribArray(1);
      gl.vertexAttribPointer(1, 4, gl.UNSIGNED_BYTE, true, 0, 0);
      gl.uniform3f(uView, view.x, view.y, view.scale);
      gl.uniform2f(uSize, size.w, size.h);
      gl.uniform1f(uDot, dotSize() * ratio);
      gl.drawArrays(gl.POINTS, 0, facts.n);
    },
  };
}

function plainPainter(canvas) {
  const context = canvas.getContext("2d");
  let tints = new Uint8Array();
  return {
    colours(bytes) { tints = bytes; },
    draw() {
      const ratio = devicePixelRatio || 1, dot = dotSize();
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, size.w, size.h);
      for (let i = 0; i < facts.n; i++) {
        const [x, y] = screen(i);
        if (x < 0 || y < 0 || x > size.w || y > size.h) continue;
        context.fillStyle = `rgba(${tints[4 * i]},${tints[4 * i + 1]},${tints[4 * i + 2]},${tints[4 * i + 3] / 255})`;
        context.fillRect(x - dot / 2, y - dot / 2, dot, dot);
      }
    },
  };
}

const dotSize = () => Math.max(2.5, Math.min(9, (9 * Math.sqrt(view.scale / 600)) / Math.max(1, Math.log10(facts.n) - 2)));

// ---- colours

let groups = null; // group of each item, and the names of those with a colour of their own
function regroup() {
  const by = at("by").value;
  groups = { by, names: [], middles: [] };
  if (by === "truth") return;
  const of = by === "class" ? classOf : by === "split" ? splitOf : folderOf;
  const names = by === "class" ? facts.classes : by === "split" ? facts.splits : facts.folders;
  const counts = new Map();
  for (const group of of) if (group !== NONE) counts.set(group, (counts.get(group) || 0) + 1);
  const first = [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0]).slice(0, COLOURS.length).map(([g]) => g);
  groups = { by, of, order: new Map(first.map((g, i) => [g, i])), names: first.map((g) => names[g]), rest: counts.size - first.length };
  groups.middles = first.map((g) => middle(of, g, Math.ceil(counts.get(g) / 1000)));
}

// The item of a group that is nearest to its median place, among every so many: where its name stands.
function middle(of, group, step) {
  const members = [];
  for (let i = 0, seen = 0; i < facts.n; i++) if (of[i] === group && seen++ % step === 0) members.push(i);
  const median = (axis) => members.map((i) => xy[2 * i + axis]).sort((a, b) => a - b)[members.length >> 1];
  const [x, y] = [median(0), median(1)];
  const away = (i) => (xy[2 * i] - x) ** 2 + (xy[2 * i + 1] - y) ** 2;
  return members.reduce((best, i) => (away(i) < away(best) ? i : best));
}

const DARK = matchMedia("(prefers-color-scheme: dark)");
// A colour of the map; on a dark ground a lighter one.
const tint = (hex) => {
  const parts = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  return DARK.matches ? parts.map((v) => Math.round(v + (255 - v) * 0.35)) : parts;
};
function truthColour(share) { // from vermilion over grey to blue
  const [a, b, c] = [[213, 94, 0], [200, 200, 200], [0, 114, 178]];
  const mix = (p, q, t) => p.map((v, i) => Math.round(v + (q[i] - v) * t));
  return share < 0.5 ? mix(a, b, share * 2) : mix(b, c, share * 2 - 1);
}

function recolour() {
  const bytes = new Uint8Array(4 * facts.n);
  const palette = COLOURS.map(tint), grey = tint(GREY);
  const inside = chosen.length ? new Set(chosen) : null;
  for (let i = 0; i < facts.n; i++) {
    let shade = grey;
    if (groups.by === "truth") shade = truthColour(trueness[i] / 255);
    else if (groups.order.has(groups.of[i])) shade = palette[groups.order.get(groups.of[i])];
    let strength = 230;
    if (lit !== null) { shade = classOf[i] === lit ? palette[1] : grey; strength = classOf[i] === lit ? 255 : 60; }
    if (inside) strength = inside.has(i) ? 255 : 50;
    bytes.set([...shade, strength], 4 * i);
  }
  paint.colours(bytes);
  legend();
  draw();
}

function legend() {
  const parts = [];
  const add = (colour, text) => {
    const spot = make("i"), entry = make("span");
    spot.style.background = colour;
    entry.append(spot, text);
    parts.push(entry, " ");
  };
  const css = (hex) => `rgb(${tint(hex).join(",")})`;
  if (lit !== null) add(css(COLOURS[1]), facts.classes[lit]);
  else if (groups.by === "truth") {
    add("rgb(213,94,0)", "false: none of its neighbours is near");
    add("rgb(0,114,178)", "true: all are");
  } else {
    groups.names.forEach((name, i) => add(css(COLOURS[i]), short(name)));
    if (groups.rest > 0) add(css(GREY), `${groups.rest} more`);
  }
  at("legend").replaceChildren(...parts);
}

const short = (text) => (text.length > 28 ? `…${text.slice(-27)}` : text);

// ---- drawing

// At most once a frame: the points where the view or a colour has changed, else what lies over them.
let waiting = false, stale = false;
function draw(points = true) {
  stale ||= points;
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    if (stale) { paint.draw(); settle(); }
    stale = false;
    overlay();
  });
}

let pen, sheets = [];
function overlay() {
  const ratio = devicePixelRatio || 1;
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, size.w, size.h);
  if (at("pictures").checked) drawPictures();
  drawNames();
  const ink = getComputedStyle(document.body).color;
  if (item >= 0) {
    const [x, y] = screen(item);
    pen.strokeStyle = ink;
    for (let j = 0; j < facts.k; j++) {
      const [u, v] = screen(near[item * facts.k + j]);
      pen.globalAlpha = 0.6;
      pen.beginPath(); pen.moveTo(x, y); pen.lineTo(u, v); pen.stroke();
      pen.globalAlpha = 1;
      pen.beginPath(); pen.arc(u, v, 5, 0, 7); pen.stroke();
    }
    ring(x, y, 9, ink, 3);
  }
  if (path) {
    pen.strokeStyle = ink;
    pen.setLineDash([5, 4]);
    pen.beginPath();
    path.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
    pen.stroke();
    pen.setLineDash([]);
  }
}

// The names of coloured groups, so that colour is not the only way to tell them; none over another.
function drawNames() {
  const { color, backgroundColor } = getComputedStyle(document.body), taken = [];
  Object.assign(pen, { font: "600 13px system-ui, sans-serif", textAlign: "center", textBaseline: "middle" });
  Object.assign(pen, { lineJoin: "round", lineWidth: 4, strokeStyle: backgroundColor, fillStyle: color });
  if (lit === null) groups.middles.forEach((i, g) => {
    const text = short(groups.names[g].split("/").pop()), half = pen.measureText(text).width / 2 + 3;
    const [u, v] = screen(i), x = Math.max(half, Math.min(size.w - half, u)), y = Math.max(9, Math.min(size.h - 9, v));
    if (u < 0 || v < 0 || u > size.w || v > size.h) return;
    if (taken.some(([a, b, other]) => Math.abs(a - x) < half + other && Math.abs(b - y) < 18)) return;
    taken.push([x, y, half]);
    pen.strokeText(text, x, y);
    pen.fillText(text, x, y);
  });
  pen.lineWidth = 1;
}

function ring(x, y, radius, colour, width) {
  pen.lineWidth = width;
  pen.strokeStyle = colour;
  pen.beginPath(); pen.arc(x, y, radius, 0, 7); pen.stroke();
  pen.lineWidth = 1;
}

function drawPictures() { // as many as lie side by side
  const side = 44, taken = new Set();
  for (let i = 0; i < facts.n; i++) {
    const [x, y] = screen(i);
    if (x < -side || y < -side || x > size.w + side || y > size.h + side) continue;
    const cell = Math.floor(x / side) + 4096 * Math.floor(y / side);
    if (taken.has(cell)) continue;
    taken.add(cell);
    const [image, u, v] = tileOf(i);
    if (image && image.complete && image.naturalWidth) pen.drawImage(image, u, v, facts.tile, facts.tile, x - side / 2, y - side / 2, side, side);
  }
}

function tileOf(i) {
  const per = facts.across ** 2, place = i % per;
  return [sheets[Math.floor(i / per)], (place % facts.across) * facts.tile, Math.floor(place / facts.across) * facts.tile];
}

// ---- finding points

let grid = null;
const CELLS = 256;
function index() {
  const heads = new Int32Array(CELLS * CELLS).fill(-1), next = new Int32Array(facts.n);
  for (let i = 0; i < facts.n; i++) {
    const cell = (xy[2 * i] >> 8) + CELLS * (xy[2 * i + 1] >> 8);
    next[i] = heads[cell];
    heads[cell] = i;
  }
  grid = { heads, next };
}

function nearest(px, py) {
  const reach = SLACK / view.scale, x = (px - view.x) / view.scale, y = 1 - (py - view.y) / view.scale;
  const cell = (v) => Math.max(0, Math.min(CELLS - 1, Math.floor(v * CELLS)));
  let best = -1, least = SLACK ** 2;
  for (let a = cell(x - reach); a <= cell(x + reach); a++)
    for (let b = cell(y - reach); b <= cell(y + reach); b++)
      for (let i = grid.heads[a + CELLS * b]; i >= 0; i = grid.next[i]) {
        const d = (((xy[2 * i] / 65535 - x) * view.scale) ** 2) + (((xy[2 * i + 1] / 65535 - y) * view.scale) ** 2);
        if (d < least) { least = d; best = i; }
      }
  return best;
}

function within(polygon) {
  const found = [];
  for (let i = 0; i < facts.n; i++) {
    const [x, y] = screen(i);
    let odd = false;
    for (let a = 0, b = polygon.length - 1; a < polygon.length; b = a++) {
      const [xa, ya] = polygon[a], [xb, yb] = polygon[b];
      if (ya > y !== yb > y && x < ((xb - xa) * (y - ya)) / (yb - ya) + xa) odd = !odd;
    }
    if (odd) found.push(i);
  }
  return found;
}

// ---- the panels

const make = (tag, text = "", more = {}) => Object.assign(document.createElement(tag), text === "" ? more : { textContent: text, ...more });
function tile(i) {
  const span = make("span", "", { className: "tile" });
  if (!facts.sheets.length) return span;
  span.style.background = backdrop(i);
  return span;
}

function backdrop(i) {
  const [image, u, v] = tileOf(i);
  return `url("${image.src}") -${u}px -${v}px`;
}

function row(i, note, ...more) {
  const line = make("li", "", { className: "go" }), text = make("div");
  text.append(make("button", className(i) || "no label", { className: "name" }), make("small", note), make("small", facts.names[i]), ...more);
  if (facts.sheets.length) line.append(tile(i));
  line.append(text);
  line.title = pathOf(i);
  line.addEventListener("click", (event) => { if (!event.target.closest(".acts")) show(i); });
  return line;
}

function acts(items, suggestion) {
  const box = make("div", "", { className: "acts" });
  const to = make("input", "", { value: suggestion || "", placeholder: "new class", ariaLabel: "new class" });
  to.setAttribute("list", "class-names");
  const act = (action) => () => {
    if (action === "relabel" && !to.value.trim()) return to.focus();
    for (const i of items) decisions.set(i, { action, label: action === "relabel" ? to.value.trim() : className(i) });
    unsaved = true;
    tell();
    box.replaceChildren(make("small", action === "relabel" ? `relabelled ${to.value.trim()}` : action === "drop" ? "dropped" : "kept"));
  };
  for (const action of ["keep", "drop", "relabel"]) {
    const button = make("button", action);
    button.addEventListener("click", act(action));
    box.append(button);
    if (action === "relabel") box.append(to);
  }
  return box;
}

function show(i) {
  item = i;
  tab("item");
  const list = make("ul");
  for (let j = 0; j < facts.k; j++) {
    const other = near[i * facts.k + j];
    list.append(row(other, `${facts.metric} ${similar[i * facts.k + j].toFixed(4)}`));
  }
  const head = make("ul");
  head.append(row(i, facts.splits.length ? facts.splits[splitOf[i]] : ""));
  const meter = make("meter", "", { min: 0, max: 1, value: trueness[i] / 255 });
  const truth = make("p", "How true the map is here: ");
  truth.append(meter, ` ${Math.round((100 * trueness[i]) / 255)} % of its neighbours are near`);
  at("item").replaceChildren(head, make("p", pathOf(i)), truth, acts([i], ""), make("h2", "Nearest, exactly"), list);
  centre(i);
}

function centre(i) {
  const [x, y] = screen(i);
  if (x < 20 || y < 20 || x > size.w - 20 || y > size.h - 20) { view.x += size.w / 2 - x; view.y += size.h / 2 - y; }
  draw();
}

function choose(items) {
  chosen = items;
  tab("chosen");
  const parts = [make("h2", `${items.length.toLocaleString("en")} selected`)];
  if (items.length) {
    const buttons = make("p");
    const copy = make("button", "Copy paths"), csv = make("button", "Save CSV"), clear = make("button", "Clear");
    copy.addEventListener("click", () => navigator.clipboard.writeText(items.map(pathOf).join("\n")).then(() => (copy.textContent = "Copied")));
    csv.addEventListener("click", () => save("selection.csv", [["path", "class"], ...items.map((i) => [pathOf(i), className(i)])]));
    clear.addEventListener("click", () => choose([]));
    buttons.append(copy, " ", csv, " ", clear);
    const list = make("ul");
    items.slice(0, 200).forEach((i) => list.append(row(i, "")));
    parts.push(buttons, make("p", "All of them:"), acts(items, ""), list);
    if (items.length > 200) parts.push(make("p", `and ${items.length - 200} more`));
  } else parts.push(make("p", "Press Lasso, or hold Shift, and draw around points."));
  at("chosen").replaceChildren(...parts);
  recolour();
}

function classes() {
  const counts = new Map();
  for (const c of classOf) if (c !== NONE) counts.set(c, (counts.get(c) || 0) + 1);
  const list = make("ul");
  for (const [c, count] of [...counts].sort((a, b) => facts.classes[a[0]].localeCompare(facts.classes[b[0]]))) {
    const line = make("li", "", { className: "go" }), text = make("div");
    text.append(make("button", facts.classes[c], { className: "name" }), make("small", `${count} items`));
    line.append(text);
    line.addEventListener("click", () => { lit = lit === c ? null : c; recolour(); });
    list.append(line);
  }
  at("classes").replaceChildren(make("p", counts.size ? "Click a class to see it alone." : "These items have no labels."), list);
}

const KINDS = {
  mislabelled: "Likely mislabelled",
  duplicates: "Near-duplicates",
  leaks: "Leaks between splits",
  hard: "Hard classes",
  confused: "Confused pairs",
};
function work() {
  const parts = [];
  for (const [kind, title] of Object.entries(KINDS)) {
    const entries = facts.worklist[kind], box = make("details"), list = make("ul");
    box.append(make("summary", `${title}: ${entries.length}`), list);
    box.addEventListener("toggle", () => {
      if (!box.open || list.childElementCount) return;
      for (const entry of entries) list.append(kind === "hard" || kind === "confused" ? group(entry) : case_(entry, kind));
    });
    parts.push(box);
  }
  at("work").replaceChildren(...parts);
}

function case_(entry, kind) {
  const last = entry.items[entry.items.length - 1]; // of twins the second goes
  const line = row(last, entry.why, acts([last], entry.label));
  if (kind !== "mislabelled") line.prepend(...(facts.sheets.length ? [tile(entry.items[0])] : []));
  return line;
}

function group(entry) {
  const line = make("li", "", { className: "go" }), text = make("div");
  text.append(make("button", entry.why, { className: "name" }));
  line.append(text);
  line.addEventListener("click", () => choose(entry.items));
  return line;
}

function find() {
  const words = at("find").value.trim().toLowerCase();
  if (!words) return choose([]);
  const found = [];
  for (let i = 0; i < facts.n; i++)
    if (pathOf(i).toLowerCase().includes(words) || className(i).toLowerCase().includes(words)) found.push(i);
  choose(found);
  if (found.length === 1) show(found[0]);
}

function tab(name) {
  for (const button of document.querySelectorAll("[data-tab]")) {
    button.setAttribute("aria-selected", button.dataset.tab === name);
    at(button.dataset.tab).hidden = button.dataset.tab !== name;
  }
}

// ---- what was decided

function tell() {
  const count = (action) => [...decisions.values()].filter((d) => d.action === action).length;
  at("decided").textContent = `${count("relabel")} relabelled, ${count("drop")} dropped, ${count("keep")} kept`;
  at("save-decisions").disabled = !decisions.size;
}

const cell = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
function save(name, rows) {
  const text = rows.map((row) => row.map((each) => cell(String(each))).join(",")).join("\n") + "\n";
  const link = make("a", "", { download: name, href: URL.createObjectURL(new Blob([text], { type: "text/csv" })) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function saveDecisions() {
  const rows = [...decisions].sort((a, b) => a[0] - b[0]).map(([i, d]) => [pathOf(i), d.label, d.action]);
  save("decisions.csv", [["path", "class", "action"], ...rows]);
  unsaved = false;
}

function saveImages() { // every item that is not dropped, as it is now labelled
  const split = facts.splits.length > 0 && facts.splits.every((name) => /^(train|test|val|query|gallery)$/i.test(name));
  const rows = [["path", "class", ...(split ? ["split"] : [])]];
  for (let i = 0; i < facts.n; i++) {
    const decided = decisions.get(i);
    if (decided?.action === "drop") continue;
    const label = decided ? decided.label : className(i);
    if (label) rows.push([pathOf(i), label, ...(split ? [facts.splits[splitOf[i]]] : [])]);
  }
  save("images.csv", rows);
  unsaved = false;
}

// ---- the mouse and the keys

function fit() {
  const box = at("map").getBoundingClientRect(), ratio = devicePixelRatio || 1;
  size = { w: box.width, h: box.height };
  for (const canvas of [at("dots"), at("over")]) { canvas.width = Math.round(size.w * ratio); canvas.height = Math.round(size.h * ratio); }
}

function whole() {
  const scale = Math.max(50, Math.min(size.w, size.h) - 40);
  view = { scale, x: (size.w - scale) / 2, y: (size.h - scale) / 2 };
  draw();
}

function zoom(factor, x = size.w / 2, y = size.h / 2) {
  factor = Math.min(factor, 4e5 / view.scale);
  view = { scale: view.scale * factor, x: x - (x - view.x) * factor, y: y - (y - view.y) * factor };
  draw();
}

// What the mouse is over is shown by two small elements, which are moved without a layout: a canvas
// would be put on the screen whole, again and again.
function hover(i) {
  if (i === hovered) return;
  hovered = i;
  at("ring").hidden = at("tip").hidden = i < 0;
  if (i < 0) return;
  const tip = at("tip"), picture = tip.querySelector(".tile");
  if (picture) picture.style.background = backdrop(i);
  tip.querySelector("b").textContent = className(i) || "no label";
  tip.querySelector("small").textContent = facts.names[i];
  settle();
}

function settle() { // the ring on its point, the tip beside it, on the side where there is room
  if (hovered < 0) return;
  const [x, y] = screen(hovered), right = x > size.w / 2, low = y > size.h / 2;
  at("ring").style.transform = `translate(${x}px, ${y}px) translate(-50%, -50%)`;
  at("tip").style.transform =
    `translate(${x + (right ? -12 : 12)}px, ${y + (low ? -12 : 12)}px) translate(${right ? -100 : 0}%, ${low ? -100 : 0}%)`;
}

function listen() {
  const over = at("over");
  const lassoing = (event) => event.shiftKey || at("lasso").getAttribute("aria-pressed") === "true";
  over.addEventListener("pointerdown", (event) => {
    over.setPointerCapture(event.pointerId);
    if (lassoing(event)) path = [[event.offsetX, event.offsetY]];
    else drag = { x: event.offsetX, y: event.offsetY, moved: false };
  });
  over.addEventListener("pointermove", (event) => {
    if (path) { path.push([event.offsetX, event.offsetY]); return draw(false); }
    if (!drag) return hover(nearest(event.offsetX, event.offsetY));
    const dx = event.offsetX - drag.x, dy = event.offsetY - drag.y;
    if (!drag.moved && Math.hypot(dx, dy) < 4) return;
    view.x += dx; view.y += dy;
    drag = { x: event.offsetX, y: event.offsetY, moved: true };
    draw();
  });
  over.addEventListener("pointerup", (event) => {
    if (path) { const drawn = path; path = null; choose(within(drawn)); }
    else if (drag && !drag.moved) { const found = nearest(event.offsetX, event.offsetY); if (found >= 0) show(found); }
    drag = null;
  });
  over.addEventListener("pointerleave", () => hover(-1));
  over.addEventListener("wheel", (event) => { event.preventDefault(); zoom(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY); }, { passive: false });
  over.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] }[event.key];
    if (moves) { view.x += moves[0]; view.y += moves[1]; event.preventDefault(); draw(); }
    if (event.key === "+" || event.key === "=") zoom(1.3);
    if (event.key === "-") zoom(1 / 1.3);
  });
  at("lasso").addEventListener("click", () => {
    const on = at("lasso").getAttribute("aria-pressed") !== "true";
    at("lasso").setAttribute("aria-pressed", on);
    over.classList.toggle("lasso", on);
  });
  at("whole").addEventListener("click", whole);
  at("by").addEventListener("change", () => { lit = null; regroup(); recolour(); });
  at("pictures").addEventListener("change", () => draw());
  at("find").addEventListener("change", find);
  at("save-decisions").addEventListener("click", saveDecisions);
  at("save-images").addEventListener("click", saveImages);
  for (const button of document.querySelectorAll("[data-tab]")) button.addEventListener("click", () => tab(button.dataset.tab));
  addEventListener("resize", () => { fit(); whole(); });
  addEventListener("beforeunload", (event) => { if (unsaved) event.preventDefault(); });
  DARK.addEventListener("change", recolour);
}

async function begin() {
  await unpack();
  at("title").textContent = `${facts.title}: ${facts.n.toLocaleString("en")} items`;
  at("title").title = `On average ${Math.round(100 * facts.truth)} % of an item's neighbours are near it on this map`;
  const options = [["class", "class"], ["truth", "how true the map is"], ["folder", "folder"]];
  if (facts.splits.length) options.splice(1, 0, ["split", "split"]);
  at("by").replaceChildren(...options.map(([value, text]) => make("option", text, { value })));
  if (!facts.classes.length) at("by").value = "truth";
  at("pictures").parentElement.hidden = !facts.sheets.length;
  sheets = facts.sheets.map((source) => Object.assign(new Image(), { src: source, onload: () => draw() }));
  at("tip").replaceChildren(...(facts.sheets.length ? [tile(0)] : []), make("b"), make("small"));
  const names = make("datalist", "", { id: "class-names" });
  names.append(...facts.classes.slice(0, 5000).map((name) => make("option", "", { value: name })));
  document.body.append(names);
  fit();
  paint = painter(at("dots"));
  pen = at("over").getContext("2d");
  index();
  regroup();
  listen();
  classes();
  work();
  choose([]);
  tab("item");
  at("item").replaceChildren(make("p", "Click a point: its exact neighbours stand here. Drag to move, wheel to zoom."),
    make("p", `On average ${Math.round(100 * facts.truth)} % of an item's ${facts.k} neighbours are near it on this map: colour by "how true the map is" to see where it is false.`));
  whole();
  document.body.dataset.ready = "yes";
}

window.nearkin = { where: (i) => screen(i), middles: () => groups.middles };
begin().catch((error) => { at("title").textContent = `This page cannot be shown: ${error.message}`; });
