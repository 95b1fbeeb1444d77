// What a control does, for fingers: a tap on its label shows what a pointer is shown.

const WHERE = ".slider label:not(.button), .row label, .blend label";

/** bubble: the element that shows it */
export function wireTips(bubble) {
  const hide = () => { bubble.hidden = true; };
  document.addEventListener("pointerup", (event) => {
    const label = event.pointerType === "mouse" ? null : event.target.closest(WHERE);
    const about = label?.parentElement.title;
    if (!about) return hide();
    bubble.textContent = about;
    bubble.hidden = false;
    const { bottom, top } = label.getBoundingClientRect();
    const room = window.innerHeight - bottom;
    bubble.style.top = `${room > bubble.offsetHeight + 8 ? bottom + 4 : top - bubble.offsetHeight - 4}px`;
    event.preventDefault();
  });
  document.addEventListener("scroll", hide, { passive: true, capture: true });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
}
