// The page comes to life: the data are read, the panels filled, the map drawn.

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
