// Draws the maps. Pointing at an item rings it in every map of the same set and shows what it is;
// a button of the key leaves one class in colour.
"use strict";
const data = JSON.parse(document.getElementById("map-data").textContent);
const tip = document.getElementById("tip");
const colour = (label) => data.colours[label] ?? data.other;
const places = []; // every map that is drawn: {element, map, set, figure}

// Whether a class is in colour: all are, or the one whose button is pressed.
function chosen(set, figure, label) {
  return figure.only === null || figure.only.set !== set || figure.only.label === label;
}

function draw({ element, map, set, figure }) {
  const canvas = element.querySelector("canvas");
  const side = element.clientWidth, sharp = window.devicePixelRatio || 1;
  canvas.width = canvas.height = Math.round(side * sharp);
  const pen = canvas.getContext("2d");
  pen.scale(sharp, sharp);
  const radius = Math.max(1.1, side / 190);
  const dot = (i) => {
    pen.beginPath();
    pen.arc(map.points[2 * i] * side, (1 - map.points[2 * i + 1]) * side, radius, 0, 7);
    pen.fill();
  };
  pen.globalAlpha = 0.55;
  const coloured = (label) => label < data.colours.length && chosen(set, figure, label);
  for (const onTop of [false, true]) {
    set.labels.forEach((label, i) => {
      if (coloured(label) !== onTop) return;
      pen.fillStyle = chosen(set, figure, label) ? colour(label) : "#ebebed";
      dot(i);
    });
  }
  pen.globalAlpha = 1;
  const write = (text, x, y) => {
    pen.lineWidth = 4;
    pen.strokeStyle = "#fff";
    pen.lineJoin = "round";
    pen.strokeText(text, x, y);
    pen.fillStyle = "#1d1d1f";
    pen.fillText(text, x, y);
  };
  pen.font = `bold ${side > 300 ? 15 : 13}px system-ui, sans-serif`;
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  for (const [label, x, y] of map.labels) {
    if (chosen(set, figure, label)) write(set.tags[label], x * side, (1 - y) * side);
  }
  pen.font = "11px system-ui, sans-serif";
  pen.textAlign = "left";
  pen.fillStyle = "#1d1d1f";
  pen.fillRect(8, side - 8, map.ruler[1] * side, 1.5);
  write(map.ruler[0], 8, side - 16);
}

function nearest(place, x, y) {
  const { map, set, figure } = place;
  let best = -1, least = (14 / place.element.clientWidth) ** 2;
  for (let i = 0; i < set.labels.length; i++) {
    if (!chosen(set, figure, set.labels[i])) continue;
    const away = (map.points[2 * i] - x) ** 2 + (map.points[2 * i + 1] - y) ** 2;
    if (away < least) [best, least] = [i, away];
  }
  return best;
}

function point(place, event) {
  const box = place.element.getBoundingClientRect();
  const x = (event.clientX - box.left) / box.width, y = 1 - (event.clientY - box.top) / box.height;
  const item = nearest(place, x, y);
  for (const other of places) {
    const ring = other.element.querySelector(".ring");
    ring.hidden = item < 0 || other.set !== place.set;
    ring.style.left = `${100 * other.map.points[2 * item]}%`;
    ring.style.top = `${100 * (1 - other.map.points[2 * item + 1])}%`;
  }
  tip.hidden = item < 0;
  if (item < 0) return;
  const set = place.set, [picture, text] = tip.children;
  text.textContent = `${set.classes[set.labels[item]]}\n${set.titles[item]}`;
  picture.hidden = !set.sheet;
  if (set.sheet) {
    const size = 64, across = set.across;
    picture.style.backgroundImage = `url(${set.sheet})`;
    picture.style.backgroundSize = `${across * size}px auto`;
    picture.style.backgroundPosition = `${-(item % across) * size}px ${-Math.floor(item / across) * size}px`;
  }
  const left = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8);
  const below = event.clientY + 14 + tip.offsetHeight < window.innerHeight;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${below ? event.clientY + 14 : event.clientY - tip.offsetHeight - 14}px`;
}

function leave() {
  tip.hidden = true;
  for (const { element } of places) element.querySelector(".ring").hidden = true;
}

for (const holder of document.querySelectorAll("figure.maps")) {
  const figure = { only: null }, own = [];
  for (const element of holder.querySelectorAll(".square")) {
    const map = data.maps[element.dataset.map], place = { element, map, set: data.sets[map.set], figure };
    own.push(place);
    places.push(place);
    element.addEventListener("pointermove", (event) => point(place, event));
    element.addEventListener("pointerdown", (event) => point(place, event));
    element.addEventListener("pointerleave", leave);
    new ResizeObserver(() => draw(place)).observe(element);
  }
  const key = holder.querySelector(".key");
  for (const set of new Set(own.map((place) => place.set))) {
    const line = document.createElement("div");
    set.tags.forEach((tag, label) => {
      const button = document.createElement("button"), spot = document.createElement("i");
      const name = set.classes[label];
      spot.style.background = colour(label);
      button.append(spot, tag === name ? name : `${tag} · ${name}`);
      button.type = "button";
      button.setAttribute("aria-pressed", "false");
      button.addEventListener("click", () => {
        const pressed = button.getAttribute("aria-pressed") === "true";
        for (const other of key.querySelectorAll("button")) other.setAttribute("aria-pressed", "false");
        button.setAttribute("aria-pressed", String(!pressed));
        figure.only = pressed ? null : { set, label };
        own.forEach(draw);
      });
      line.append(button);
    });
    const more = set.classes.length - set.tags.length;
    if (more > 0) line.append(`and ${more} more classes in grey`);
    key.append(line);
  }
}
