// Graph files under names: kept by the server, saved, loaded, downloaded, and read from this machine.
import { request } from "./api.js";
import { notice } from "./notice.js";

const $ = (id) => document.getElementById(id);
const path = (name) => `/api/presets/${encodeURIComponent(name)}`;

let tried = null;
let asked = null;
let loads = [];

/** guarded(action): what was refused is shown; asking(path): what the server says there */
export function wirePresets(guarded, asking) {
  [tried, asked] = [guarded, asking];
  $("preset-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    await save($("preset-name").value.trim(), "");
    $("preset-name").value = "";
  });
  $("show-file").addEventListener("change", takeShow);
  $("preset-file").addEventListener("change", async () => {
    const [file] = $("preset-file").files;
    $("preset-file").value = "";
    if (!file) return;
    const name = file.name.replace(/\.ya?ml$/i, "").replace(/[^A-Za-z0-9 _-]/g, "-").replace(/^[^A-Za-z0-9]+/, "") || "loaded";
    if (await save(name.slice(0, 64), await file.text())) load(name.slice(0, 64));
  });
}

/** Looks, tempo, cues and MIDI map of a show file. */
async function takeShow() {
  const [file] = $("show-file").files;
  $("show-file").value = "";
  if (!file) return;
  const text = await file.text();
  const answer = await tried(() => request("PUT", "/api/show", text));
  if (!answer) return;
  show(answer.names);
  notice(`show ${file.name} is loaded`, null, "said");
}

export async function listPresets() {
  const names = await asked("/api/presets");
  if (names) show(names);
}

async function save(name, text) {
  const answer = await tried(() => request("PUT", path(name), text));
  if (answer) show(answer.names);
  return Boolean(answer);
}

function load(name) {
  const loading = (restart) => async () => {
    const over = Number($("over").value);
    await request("POST", `${path(name)}/load?${new URLSearchParams({ restart, over_s: over })}`);
    notice(`preset ${name} holds`, null, "said");
  };
  return tried(loading(false), () => tried(loading(true)));
}

function show(names) {
  loads = names.map((name) => () => load(name));
  $("presets").replaceChildren(...names.map(row));
}

/** What loads each of them, in the order they are shown. */
export function presets() {
  return loads;
}

function row(name, index) {
  const item = document.createElement("li");
  const use = button(name, `Load preset ${name}`, () => load(name));
  use.className = "use";
  use.dataset.preset = name;
  if (index < 9) {
    use.setAttribute("aria-keyshortcuts", String(index + 1));
    use.title += `: key ${index + 1}`;
    use.prepend(Object.assign(document.createElement("kbd"), { textContent: index + 1 }));
  }
  const save = document.createElement("a");
  Object.assign(save, { href: path(name), download: `${name}.yaml`, textContent: "YAML", className: "button quiet" });
  save.setAttribute("aria-label", save.title = `Download preset ${name}`);
  const drop = button("×", `Delete preset ${name}`, async () => {
    const answer = await tried(() => request("DELETE", path(name)));
    if (answer) show(answer.names);
    $("preset-name").focus();
  });
  drop.className = "quiet";
  item.append(use, save, drop);
  return item;
}

function button(text, label, action) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.setAttribute("aria-label", made.title = label);
  made.addEventListener("click", action);
  return made;
}
