// The streams of a run of several: which one is looked at and controlled, and how they join and leave.

import { lines } from "./api.js";

const $ = (id) => document.getElementById(id);

export class Streams {
  #told = "";

  /** ask(method, path, body): what was refused is shown by it */
  constructor(ask) {
    $("stream").addEventListener("change", () => ask("POST", "/api/stream", { name: $("stream").value }));
    $("stream-remove").addEventListener("click", () => ask("DELETE", `/api/streams/${encodeURIComponent($("stream").value)}`));
    $("stream-form").addEventListener("submit", async (event) => {
      event.preventDefault();
      const sinks = lines($("stream-sinks").value);
      const keys = { source: $("stream-source").value.trim(), sinks };
      if (await ask("POST", "/api/streams", keys)) event.target.reset();
    });
  }

  /** names: of all; chosen: the one that is looked at; joining: streams can be added now */
  follow(names, chosen, joining) {
    const told = JSON.stringify([names, chosen, joining]);
    if (told === this.#told) return;
    this.#told = told;
    $("streams").hidden = !names.length && !chosen;
    $("stream").replaceChildren(...names.map((name) => new Option(name)));
    $("stream").value = chosen;
    $("stream-remove").disabled = !joining || !names.length;
    $("stream-add").disabled = !joining;
  }
}
