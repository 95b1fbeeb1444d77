// What can be taken as a source without writing an address: cameras, screens, files, addresses taken before.
import { request } from "./api.js";
import { notice } from "./notice.js";

const $ = (id) => document.getElementById(id);
const fileName = (path) => path.split(/[\\/]/).pop();

export class Sources {
  #tried;
  #take;

  /** tried(action): what was refused is shown by it; take(source): the source that was chosen */
  constructor(tried, take) {
    this.#tried = tried;
    this.#take = take;
    $("pick").addEventListener("change", () => {
      if ($("pick").value) take($("pick").value);
      $("pick").value = "";
    });
    $("pick").addEventListener("pointerdown", () => this.list());
    $("upload").addEventListener("change", () => this.#upload());
    $("browse").addEventListener("click", () => this.#browse());
  }

  async list() {
    const known = await request("GET", "/api/sources").catch(() => null);
    if (!known) return;
    $("browse").hidden = !known.browsing;
    const cameras = known.cameras.flatMap(({ name, url, modes }) => [
      new Option(name, url), ...modes.map((mode) => new Option(`${name}, ${mode.slice(mode.indexOf(",") + 1)}`, mode)),
    ]);
    const groups = [
      ["Cameras", cameras],
      ["Screens", known.screens.map(({ name, url }) => new Option(name, url))],
      ["Taken before", known.recent.map((url) => new Option(url, url))],
      ["Uploaded", known.uploads.map(({ name, url }) => new Option(name, url))],
      ["With warpfuse", [new Option("the clip that ships", known.clip), new Option("a pattern", "pattern:512x288@25,live=1,motion=objects")]],
      ["From another program", [new Option("OBS or a browser, by WHIP to http://127.0.0.1:8889/whip", "whip:8889")]],
    ].filter(([, options]) => options.length).map(([label, options]) => {
      const group = Object.assign(document.createElement("optgroup"), { label });
      group.replaceChildren(...options);
      return group;
    });
    $("pick").replaceChildren($("pick").options[0], ...groups);
  }

  async #upload() {
    const file = $("upload").files[0];
    $("upload").value = "";
    if (!file) return;
    notice(`uploading ${file.name}`, null, "said");
    const kept = await this.#tried(() => request("PUT", `/api/uploads/${encodeURIComponent(file.name)}`, file));
    if (kept) this.#take(kept.url);
  }

  #browse() {
    const open = $("browser").hidden;
    $("browser").hidden = !open;
    $("browse").setAttribute("aria-expanded", String(open));
    if (open) this.#show("");
  }

  async #show(folder) {
    const found = await this.#tried(() => request("GET", `/api/files?${new URLSearchParams({ folder })}`));
    if (!found) return;
    const at = (name) => `${found.folder.replace(/[\\/]$/, "")}/${name}`;
    $("here").textContent = found.folder;
    const entry = (text, act) => {
      const item = document.createElement("li");
      const button = Object.assign(document.createElement("button"), { type: "button", className: "quiet", textContent: text });
      button.addEventListener("click", act);
      item.append(button);
      return item;
    };
    $("entries").replaceChildren(
      ...(found.parent === found.folder ? [] : [entry("..", () => this.#show(found.parent))]),
      ...found.folders.map((name) => entry(`${name}/`, () => this.#show(at(name)))),
      ...found.files.map((name) => entry(name, () => {
        this.#browse();
        this.#take(at(name));
      })),
    );
    if (!found.folders.length && !found.files.length) $("entries").append(entry(`no video in ${fileName(found.folder)}`, () => {}));
  }
}
