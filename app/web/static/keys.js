// The controls of keys that may change while frames flow. Which there are, and what each does, is the server's to say.
import { at } from "./api.js";

export const made = (tag, about, ...inside) => {
  const element = Object.assign(document.createElement(tag), about);
  element.append(...inside);
  return element;
};

const FINEST = 100; // steps of a slider over a range of 1

/** The keys the page has no control for, each under the name of its part, as rows of `place`. */
export function addControls(place, keys) {
  const there = new Set([...document.querySelectorAll("[data-key]")].map((control) => control.dataset.key));
  const parts = new Map();
  for (const key of keys) {
    if (there.has(key.key) || key.key === "prompt") continue;
    const cut = key.key.lastIndexOf(".");
    const part = key.key.slice(0, Math.max(cut, 0)).replace(/^stages\./, "");
    if (!parts.has(part)) parts.set(part, []);
    parts.get(part).push(row(key, key.key.slice(cut + 1)));
  }
  for (const [part, rows] of parts) {
    const title = made("summary", { textContent: (part || "general").replaceAll(".", " / ").replaceAll("_", " ") });
    place.append(made("details", {}, title, ...rows));
  }
}

/** What each control does, under the pointer and for who has the page read out. */
export function explain(keys, run) {
  const about = new Map(keys.map((key) => [key.key, key.about]));
  for (const control of document.querySelectorAll("[data-key]")) {
    tip(control, about.get(control.dataset.key));
  }
  for (const control of document.querySelectorAll("[data-run]")) tip(control, run[control.dataset.run]);
}

function tip(control, about) {
  if (about) control.title = control.parentElement.title = about;
}

/** What stands in a control, as the settings have it. */
export function valueOf(control) {
  if (control.type === "checkbox") return control.checked;
  if (control.dataset.place) return ends(control);
  if (control.dataset.kind === "pair") return control.value.split(",").map(Number);
  if (control.type === "number" && control.value === "") return null;
  return ["range", "number"].includes(control.type) ? Number(control.value) : control.value;
}

/** Show what the settings have at the key of a control; a slider of a key they lack stands at its least. */
export function showIn(control, settings) {
  const value = at(settings, control.dataset.key);
  if (control.type === "checkbox") control.checked = value;
  else if (control.dataset.place) control.value = value?.[control.dataset.place] ?? "";
  else control.value = Array.isArray(value) ? value.join(", ") : String(value ?? (control.type === "range" ? control.min : ""));
}

/** What the two sliders of a pair say, the lower first: the one that moves pushes the other. */
function ends(control) {
  const place = Number(control.dataset.place);
  const both = [...document.querySelectorAll("[data-place]")].filter((one) => one.dataset.key === control.dataset.key);
  const values = both.sort((a, b) => a.dataset.place - b.dataset.place).map((one) => Number(one.value));
  values[1 - place] = place ? Math.min(...values) : Math.max(...values);
  return values;
}

/** Two sliders for a pair of numbers between `least` and `most`. */
export function pairRows(key, name, [least, most], step) {
  return ["from", "to"].map((end, place) => {
    const id = `key-${key.key.replaceAll(".", "-")}-${end}`;
    const input = made("input", { id, type: "range", min: least, max: most, step });
    input.dataset.key = key.key;
    input.dataset.place = place;
    const label = made("label", { htmlFor: id, textContent: `${name} ${end}` });
    return made("div", { className: "slider" }, label, input, made("output", { htmlFor: id }));
  });
}

/** A labelled control of a key. wide: a slider over any range that has ends. */
export function row(key, name, wide = false) {
  const id = `key-${key.key.replaceAll(".", "-")}`;
  const control = controlOf(key, wide);
  control.id = id;
  control.dataset.key = key.key;
  const label = made("label", { htmlFor: id, textContent: name.replaceAll("_", " ") });
  if (control.type !== "range") return made("div", { className: "row" }, label, control);
  return made("div", { className: "slider" }, label, control, made("output", { htmlFor: id }));
}

function stepOf(range) {
  return range > 100 ? 1 : range > 2 ? 0.1 : 1 / FINEST;
}

function controlOf(key, wide) {
  if (key.kind === "choice") return made("select", {}, ...key.choices.map((choice) => new Option(choice)));
  if (key.kind === "switch") return made("input", { type: "checkbox" });
  if (key.kind === "text") return made("input", { type: "text", autocomplete: "off", spellcheck: false });
  if (key.kind === "pair") {
    const control = made("input", { type: "text", autocomplete: "off", inputMode: "numeric" });
    control.dataset.kind = "pair";
    return control;
  }
  const whole = key.kind === "whole";
  const bounded = key.least !== null && key.most !== null && !key.none && (wide || key.most - key.least <= 100);
  const step = whole ? 1 : bounded ? stepOf(key.most - key.least) : "any";
  const control = made("input", { type: bounded ? "range" : "number", step });
  if (key.least !== null) control.min = key.least;
  if (key.most !== null) control.max = key.most;
  if (key.none) control.placeholder = "none";
  return control;
}
