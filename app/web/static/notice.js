// One line across the foot of the page: what was refused, and the way out if there is one.

const box = document.getElementById("notice");
const text = document.getElementById("notice-text");
const restart = document.getElementById("notice-restart");
let timer = 0;

/** way: what "Restart with it" does; kind "said" is news, else it is a complaint */
export function notice(line, way, kind = "refused") {
  clearTimeout(timer);
  if (text.textContent !== line || box.hidden) text.textContent = line; // the same one is not read out again
  box.dataset.kind = kind;
  box.hidden = false;
  restart.hidden = way === null;
  restart.onclick = () => {
    quiet();
    way();
  };
  if (kind === "said") timer = setTimeout(quiet, 6000);
}

/** What was refused is no more: something else worked, or there is another run. News stay for their time. */
export function quiet() {
  if (box.dataset.kind !== "said") box.hidden = true;
}

/** There is nothing left to restart. */
export function withdraw() {
  if (!restart.hidden) quiet();
}

/** Who types again has read it. */
document.addEventListener("input", quiet);
document.getElementById("notice-close").addEventListener("click", () => { box.hidden = true; });
