// The colours of the points: by class, split or folder, or by how true the map is.

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
