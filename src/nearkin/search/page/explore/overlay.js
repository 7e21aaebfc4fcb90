// What lies over the points: names, pictures, the neighbours of an item, the lasso.

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
