"use strict";
// The items of a map and its state, which all files of this folder share: explore.py joins them to one.
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
