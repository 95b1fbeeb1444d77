// What a graph is built with: it holds from the next start on.

import { lines } from "./api.js";

const $ = (id) => document.getElementById(id);

export class RunForm {
  #settings = {};

  /** send(keys): what was asked for */
  constructor(send) {
    $("run-form").addEventListener("submit", (event) => {
      event.preventDefault();
      send(this.keys());
    });
    $("run-form").addEventListener("input", () => {
      this.#mark();
      this.#fit();
    });
  }

  /** These are the settings now; what is being edited stays. */
  follow(settings) {
    const before = this.#settings;
    this.#settings = settings;
    for (const control of this.#controls) {
      const key = control.dataset.run;
      if (control.value === shown(before[key]) || !(key in before)) control.value = shown(settings[key]);
    }
    this.#fit();
    this.#mark();
  }

  /** Ask for this source, with whatever else was edited. */
  take(source) {
    $("source").value = source;
    this.#mark();
    $("run-form").requestSubmit();
  }

  bundles(names) {
    const wanted = this.#settings.bundle;
    if (wanted && !names.includes(wanted)) names = [wanted, ...names];
    $("bundle").replaceChildren(...names.map((name) => new Option(name)));
    $("bundle").value = wanted;
    this.#mark();
  }

  running(yes) {
    $("apply").textContent = yes ? "Apply and restart" : "Apply";
  }

  /** The keys that differ from the settings. */
  keys() {
    const keys = {};
    for (const control of this.#controls) {
      const key = control.dataset.run;
      if (control.value !== shown(this.#settings[key])) keys[key] = meant(key, control.value.trim());
    }
    return keys;
  }

  #mark() {
    const changed = this.keys();
    $("apply").disabled = !Object.keys(changed).length;
    for (const control of this.#controls) control.classList.toggle("edited", control.dataset.run in changed);
  }

  /** A line for each sink, and no more. */
  #fit() {
    $("sinks").rows = Math.max(1, $("sinks").value.split("\n").length);
  }

  get #controls() {
    return document.querySelectorAll("[data-run]");
  }
}

function shown(value) {
  if (value === null || value === undefined) return "";
  if (value.kind) return { off: "", network: value.of }[value.kind] ?? `${value.kind}:${value.of}`;
  if (!Array.isArray(value)) return String(value);
  return value.every((part) => typeof part === "number") ? value.join("x") : value.join("\n");
}

function meant(key, text) {
  if (key === "sinks") return lines(text);
  if (key === "loop") return text === "true";
  if (["seed", "rotate"].includes(key)) return Number(text);
  if (["size", "output"].includes(key)) return text || null;
  if (key === "mask") return text || "off";
  return text;
}
