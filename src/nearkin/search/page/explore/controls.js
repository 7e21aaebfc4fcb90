// The mouse and the keys: they move the map, zoom, choose and point.

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
