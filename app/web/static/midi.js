// A controller of MIDI: which knob does what, and learning it by touching a control here and moving a knob there.
import { request } from "./api.js";
import { made } from "./keys.js";

const $ = (id) => document.getElementById(id);
const DOES = { start: "start", stop: "stop", pause: "pause", record: "record", snapshot: "snapshot", tap: "tap" };

let choosing = false; // the next control that is touched is the one to learn
let shown = "";

/** tried(action): does it and shows what was refused;  change(keys): asks for these settings */
export function wireMidi(tried, change) {
  const learn = async (to) => {
    choosing = false;
    if (await tried(() => request("POST", "/api/midi/learn", { to }))) tell(to ? `Move a knob or press a pad: ${to}` : "");
    pressed(Boolean(to));
  };
  request("GET", "/api/midi").then(({ port }) => {
    $("midi-port").textContent = port ?? "No port: warpfuse serve --midi PORT";
    $("midi-learn").disabled = !port;
  }, () => {});
  $("midi-learn").addEventListener("click", () => {
    const on = $("midi-learn").getAttribute("aria-pressed") !== "true";
    if (!on) return learn(null);
    choosing = true;
    pressed(true);
    tell("Touch a slider, a preset, Tap, Pause or Record");
  });
  for (const kind of ["pointerdown", "click", "input", "change"]) {
    document.addEventListener(kind, (event) => {
      if (!choosing || $("midi-learn").contains(event.target)) return;
      const to = target(event.target);
      if (!to) return;
      event.preventDefault();
      event.stopPropagation();
      if (kind === "click" || kind === "input") learn(to); // the press itself does nothing
    }, { capture: true });
  }
  $("midi-map").addEventListener("click", (event) => {
    const { trigger } = event.target.dataset;
    if (trigger) change({ midi: { [trigger]: null } });
  });
}

/** The map as the settings have it. */
export function followMidi({ midi }) {
  const rows = Object.entries(midi);
  if (JSON.stringify(rows) === shown) return;
  if (shown && !choosing) {
    pressed(false);
    tell("");
  }
  shown = JSON.stringify(rows);
  $("midi-map").replaceChildren(...rows.map(([trigger, does]) => {
    const drop = made("button", { type: "button", className: "quiet", textContent: "×" });
    drop.dataset.trigger = trigger;
    drop.setAttribute("aria-label", drop.title = `Forget ${trigger}`);
    return made("li", {}, made("span", { textContent: `${trigger}: ${does.key || does.do || `look ${does.look}`}` }), drop);
  }));
}

/** What a knob would do in the place of this control: a key, "look NAME", or a word. */
function target(element) {
  const control = element.closest("[data-key]");
  if (control) return control.dataset.key;
  const preset = element.closest("[data-preset]");
  if (preset) return `look ${preset.dataset.preset}`;
  const button = element.closest("button, a");
  return button ? DOES[button.id] : undefined;
}

function pressed(on) {
  $("midi-learn").setAttribute("aria-pressed", String(on));
}

function tell(text) {
  $("midi-told").textContent = text;
}
