// The panels beside the map: an item, a selection, the classes, the worklist.

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
