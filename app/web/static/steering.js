// The controls of the run: how strongly each steers, and all that its map can be told while it runs.
import { made, pairRows, row } from "./keys.js";

const LEVELS = [0, 1000]; // timesteps of a window
const place = document.getElementById("steering");

export class Steering {
  #kinds = null;
  #controls = null;
  #shown = "";

  /** wire(input): has a slider or field send its value */
  constructor(wire) {
    this.wire = wire;
  }

  /** kind of a control -> its keys, as the server has them */
  kinds(kinds) {
    this.#kinds = kinds;
    this.#draw();
  }

  /** The controls that the settings have now. */
  follow(controls) {
    this.#controls = controls;
    this.#draw();
  }

  #draw() {
    if (!this.#kinds || !this.#controls) return;
    const named = Object.entries(this.#controls).map(([name, { kind }]) => [name, kind]);
    if (this.#shown === JSON.stringify(named)) return;
    this.#shown = JSON.stringify(named);
    place.hidden = !named.length;
    place.replaceChildren(place.querySelector("legend"), ...named.flatMap(([name, kind]) => this.#rows(name, kind)));
    place.querySelectorAll("[data-key]").forEach(this.wire);
  }

  /** The slider of its scale, and the rest below it, folded. */
  #rows(name, kind) {
    const keys = (this.#kinds[kind] ?? []).map((key) => ({ ...key, name: key.key, key: `controls.${name}.${key.key}` }));
    const isScale = (key) => key.name === "scale";
    const others = keys.filter((key) => !isScale(key)).flatMap((key) => explained(key, key.name));
    const scale = keys.filter(isScale).flatMap((key) => explained(key, name));
    return [...scale, made("details", {}, made("summary", { textContent: `${name}: ${kind}` }), ...others)];
  }
}

/** The rows of a key, which tell under the pointer what it does. */
function explained(key, label) {
  const rows = key.kind === "pair" ? pairRows(key, label, LEVELS, 10) : [row(key, label, true)];
  for (const one of rows) one.title = key.about;
  return rows;
}
