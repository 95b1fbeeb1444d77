// The page of a cluster: what its controller tells, a picture of each stream every five seconds, and one that is live.

import { request } from "./api.js";

const $ = (id) => document.getElementById(id);
const STATUS_MS = 2000;
const PICTURE_MS = 5000;
const LIVE_MS = 100;
const tiles = new Map();
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
let asked = 0;

function element(tag, name, text = "") {
  const made = document.createElement(tag);
  made.className = name;
  made.textContent = text;
  return made;
}

/** A stream in the grid. */
class Tile {
  #image = element("img", "");
  #where = element("span", "muted");
  #state = element("span", "muted");
  #frames = element("span", "muted");
  #why = element("span", "why");
  #url = "";

  constructor(name) {
    this.name = name;
    this.item = document.createElement("li");
    this.button = element("button", "tile");
    this.button.type = "button";
    this.button.setAttribute("aria-label", `${name}: show live`);
    const frame = element("span", "frame", "No picture yet");
    const about = element("span", "about");
    about.append(element("strong", "", name), this.#state, this.#where, this.#frames, this.#why);
    this.#image.alt = "";
    frame.append(this.#image);
    this.button.append(frame, about);
    this.button.addEventListener("click", () => look(name));
    this.item.append(this.button);
  }

  tell(stream) {
    this.running = stream.state === "runs";
    this.button.dataset.state = stream.state;
    this.#state.textContent = stream.state;
    this.#where.textContent = stream.host || "on no host";
    this.#frames.textContent = `${stream.out} out, ${stream.dropped} dropped`;
    this.#why.textContent = stream.why;
  }

  /** The picture of now; the one before stays where there is none. */
  async renew() {
    if (!this.running) return;
    const image = await newest(this.name);
    if (!image) return;
    this.#image.replaceWith(image);
    this.#image = image;
  }
}

/** A picture of a stream, loaded; null: there is none. */
async function newest(name) {
  const image = new Image();
  image.alt = "";
  image.src = `/api/streams/${encodeURIComponent(name)}/picture.jpg?${(asked += 1)}`;
  return image.decode().then(() => image, () => null);
}

function show(told) {
  $("cluster").textContent = told.cluster;
  document.title = `${told.cluster} - warpfuse cluster`;
  const running = told.streams.filter((stream) => stream.state === "runs").length;
  const wrong = told.troubles.length > 0 || told.streams.some((stream) => stream.why);
  $("state").dataset.state = wrong ? "starting" : "running";
  $("state").textContent = `${running} of ${told.streams.length} streams run`;
  $("facts").replaceChildren(element("span", "", `${told.hosts.length} hosts`));
  $("none").hidden = told.streams.length > 0;
  $("troubles").hidden = told.troubles.length === 0;
  $("troubles").replaceChildren(...told.troubles.map((trouble) => element("li", "", trouble)));
  const names = new Set(told.streams.map((stream) => stream.name));
  for (const [name, tile] of tiles) {
    if (!names.has(name)) {
      tile.item.remove();
      tiles.delete(name);
    }
  }
  for (const stream of told.streams) {
    if (!tiles.has(stream.name)) {
      const tile = new Tile(stream.name);
      tiles.set(stream.name, tile);
      $("streams").append(tile.item);
    }
    tiles.get(stream.name).tell(stream);
  }
  $("hosts").replaceChildren(...told.hosts.map(host));
}

function host(told) {
  const row = document.createElement("li");
  const streams = told.streams.length ? told.streams.join(", ") : "no streams";
  const state = told.state === "runs" ? streams : `${told.state}; ${streams}`;
  row.append(
    element("strong", "", told.name),
    element("span", "muted", told.gpu),
    element("span", "muted", told.load.toFixed(2)),
    element("span", told.state.startsWith("runs") ? "muted" : "bad", state),
  );
  return row;
}

/** Show one stream live, until the dialog is closed. Each picture is asked for when the one before is shown. */
async function look(name) {
  $("live-name").textContent = name;
  $("live-frame").replaceChildren();
  $("live").showModal();
  while ($("live").open && $("live-name").textContent === name) {
    const image = await newest(name);
    $("live-told").textContent = image ? "" : "No picture now";
    if (image) {
      image.alt = `Live picture of ${name}`;
      $("live-frame").replaceChildren(image);
    }
    await pause(image ? LIVE_MS : 1000);
  }
}

async function follow() {
  for (;;) {
    try {
      show(await request("GET", "/api/cluster"));
    } catch (refused) {
      $("state").dataset.state = "gone";
      $("state").textContent = refused.message;
    }
    await pause(STATUS_MS);
  }
}

async function pictures() {
  for (;;) {
    if (!document.hidden) await Promise.all([...tiles.values()].map((tile) => tile.renew()));
    await pause(tiles.size ? PICTURE_MS : 500);
  }
}

$("close").addEventListener("click", () => $("live").close());
follow();
pictures();
