// Which point is near the mouse, and which lie within a lasso.

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
