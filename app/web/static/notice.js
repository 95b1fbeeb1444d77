// One line across the foot of the page: what was refused, and the way out if there is one.

const box = document.getElementById("notice");
const text = document.getElementById("notice-text");
const restart = document.getElementById("notice-restart");
let timer = 0;

/** way: what "Restart with it" does; kind "said" is news, else it is a complaint */
export function notice(line, way, kind = "refused") {
  clearTimeout(timer);
  if (text.textContent === line && !box.hidden) return; // do not read it out again
  text.textContent = line;
  box.dataset.kind = kind;
  box.hidden = false;
  restart.hidden = way === null;
  restart.onclick = () => {
    quiet();
    way();
  };
  if (kind === "said") timer = setTimeout(quiet, 6000);
}

export function quiet() {
  if (box.dataset.kind !== "said") box.hidden = true;
}

document.getElementById("notice-close").addEventListener("click", () => { box.hidden = true; });
