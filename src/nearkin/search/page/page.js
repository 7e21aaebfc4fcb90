"use strict";
// Sends a photograph to /search and shows what comes back. Names are set as text, never as HTML.

const at = (id) => document.getElementById(id);
let last = null; // the photograph that was sent, to be sent again when k or label change
let turn = 0; // of several questions only the latest is shown

function headers() {
  const key = at("key").value;
  return key ? { authorization: `Bearer ${key}` } : {};
}

function say(text, wrong = false) {
  at("verdict").textContent = text;
  at("verdict").classList.toggle("wrong", wrong);
}

async function ask(file) {
  if (!file) return;
  last = file;
  const mine = ++turn;
  URL.revokeObjectURL(at("query").src);
  at("query").src = URL.createObjectURL(file);
  at("query").hidden = false;
  say("Searching …");
  const words = new URLSearchParams({ k: at("k").value || "12" });
  if (at("label").value) words.set("label", at("label").value);
  try {
    const answer = await fetch(`search?${words}`, {
      method: "POST",
      headers: { ...headers(), "content-type": file.type || "application/octet-stream" },
      body: file,
    });
    const found = await answer.json();
    if (mine !== turn) return;
    if (answer.status === 401) at("keyed").hidden = false;
    if (!answer.ok) throw new Error(found.error || answer.statusText);
    show(found);
  } catch (error) {
    if (mine !== turn) return;
    at("hits").replaceChildren();
    say(error.message, true);
  }
}

function show(found) {
  const share = found.share === null ? "" : ` (${Math.round(100 * found.share)} % of the nearest with a label)`;
  const label = found.label === null ? "No label among the nearest" : `${found.label}${share}`;
  say(found.known === false ? `Unknown: nothing here is near enough. Nearest would be ${label}` : label);
  at("hits").replaceChildren(...found.hits.map((hit) => card(hit, found.similarity)));
}

function card(hit, similarity) {
  const item = document.createElement("li");
  const picture = document.createElement("img");
  const name = document.createElement("b");
  const near = document.createElement("small");
  const path = document.createElement("small");
  picture.loading = "lazy";
  picture.alt = hit.label || "";
  thumbnail(picture, hit.path);
  name.textContent = hit.label || "no label";
  const [kind, size] = similarity === "minus distance" ? ["distance", -hit.similarity] : [similarity, hit.similarity];
  near.textContent = `${kind} ${size.toFixed(3)}`;
  path.textContent = hit.path.split("/").pop();
  path.title = hit.path;
  item.append(picture, name, near, path);
  return item;
}

async function thumbnail(picture, path) {
  const answer = await fetch(`thumbnail?${new URLSearchParams({ path })}`, { headers: headers() });
  if (!answer.ok) return;
  picture.src = URL.createObjectURL(await answer.blob());
  picture.onload = () => URL.revokeObjectURL(picture.src);
}

const drop = at("drop");
at("file").addEventListener("change", (event) => ask(event.target.files[0]));
for (const kind of ["dragenter", "dragover"])
  document.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
for (const kind of ["dragleave", "drop"])
  document.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.remove("over"); });
document.addEventListener("drop", (event) => ask(event.dataTransfer.files[0]));
document.addEventListener("paste", (event) => ask(event.clipboardData.files[0]));
for (const id of ["k", "label", "key"]) at(id).addEventListener("change", () => ask(last));
at("ask").addEventListener("submit", (event) => { event.preventDefault(); ask(last); });
fetch("healthz").then((answer) => answer.json()).then((found) => {
  at("about").textContent = found.items === null
    ? `Model ${found.identity}, no index`
    : `${found.items.toLocaleString("en")} photographs, Model ${found.identity}`;
});
