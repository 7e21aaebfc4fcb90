// What was decided on items, and the files that it is saved in.

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
