// Keys of the keyboard that press a button, wherever the focus is but in a field where the key is meant otherwise.

const TYPES = "input:not([type=range]):not([type=radio]):not([type=checkbox]), textarea, select";
const PRESSES = "button, a, summary, input, select, textarea"; // the space bar is theirs

/** pressed: key -> what to do; "1" to "9" are one, called with the number */
export function wireHotkeys(pressed, numbered) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.repeat || event.target.closest(TYPES)) return;
    if (event.key === " " && event.target.closest(PRESSES)) return;
    const act = /^[1-9]$/.test(event.key) ? () => numbered(Number(event.key)) : pressed[event.key.toLowerCase()];
    if (!act) return;
    event.preventDefault();
    act();
  });
}
