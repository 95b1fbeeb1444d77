// Styles as chips, a blend of two by a slider, and the text that both come to. The text is the truth.

const $ = (id) => document.getElementById(id);

export class Prompt {
  #send;
  #styles = {};
  #default = "";
  #text = "";

  constructor(send) {
    this.#send = send;
    $("chips").addEventListener("keydown", (event) => this.#step(event));
    $("other").addEventListener("change", () => this.#blend());
    $("mix").addEventListener("input", () => this.#blend());
    $("prompt-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#set($("prompt").value.trim());
    });
  }

  /** The bundle has other styles, or takes text. */
  bundle(bundle) {
    this.#styles = bundle.styles;
    this.#default = bundle.default;
    $("chips").hidden = $("blend").hidden = bundle.text;
    $("chips").replaceChildren(...Object.entries(bundle.styles).map(
      ([name, about]) => this.#chip(name, about, bundle.thumbs[name]),
    ));
    $("other").replaceChildren(new Option("nothing", ""), ...Object.keys(bundle.styles).map((name) => new Option(name)));
    $("prompt").placeholder = bundle.text ? "what it should look like" : bundle.default;
    this.follow(this.#text);
  }

  /** The prompt is this now. */
  follow(text) {
    this.#text = text;
    if (document.activeElement !== $("prompt")) $("prompt").value = text;
    const parts = parsed(text || this.#default);
    const [first, second] = parts.every(([name]) => name in this.#styles) ? parts : [];
    for (const chip of $("chips").children) {
      const chosen = chip.dataset.name === first?.[0];
      chip.setAttribute("aria-checked", String(chosen));
      chip.tabIndex = chosen ? 0 : -1;
    }
    if (!first && $("chips").firstChild) $("chips").firstChild.tabIndex = 0;
    const two = parts.length === 2 && Boolean(second);
    $("other").value = two ? second[0] : "";
    const total = two ? first[1] + second[1] : 0;
    const share = total > 0 ? Math.round((100 * second[1]) / total) : 50;
    if (document.activeElement !== $("mix")) $("mix").value = share;
    $("mix").disabled = !two;
    $("mixed").value = two ? `${share} %` : "";
  }

  /** thumb: a token that changes with the small picture of the style; undefined: it has none */
  #chip(name, about, thumb) {
    const chip = document.createElement("button");
    chip.type = "button";
    chip.dataset.name = name;
    chip.setAttribute("role", "radio");
    const [title, line] = ["strong", "small"].map((tag) => document.createElement(tag));
    title.textContent = name;
    line.textContent = about;
    chip.title = about;
    if (thumb) {
      const picture = document.createElement("img");
      picture.alt = "";
      picture.src = `/api/bundle/thumbs/${encodeURIComponent(name)}?${thumb}`;
      chip.append(picture);
    }
    chip.append(title, ...(thumb ? [] : [line])); // a picture says it, and leaves room for the sliders below
    chip.addEventListener("click", () => this.#choose(chip));
    return chip;
  }

  /** The arrows go from chip to chip and choose, as in any group of radio buttons. */
  #step(event) {
    const chips = [...$("chips").children];
    const here = chips.indexOf(document.activeElement);
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const ends = { Home: 0, End: chips.length - 1 }[event.key];
    if (here < 0 || (by === undefined && ends === undefined)) return;
    event.preventDefault();
    const next = chips[ends ?? (here + by + chips.length) % chips.length];
    next.focus();
    this.#choose(next);
  }

  #choose(chip) {
    const other = $("other").value;
    if (other && other !== chip.dataset.name) this.#blend(chip.dataset.name);
    else this.#set(chip.dataset.name);
  }

  #blend(first) {
    first ??= [...$("chips").children].find((chip) => chip.getAttribute("aria-checked") === "true")?.dataset.name;
    const other = $("other").value;
    const share = Number($("mix").value);
    if (!other || !first || other === first) {
      if (first) this.#set(first);
      return;
    }
    const [a, b] = shortest(100 - share, share);
    this.#set(`${first}:${a}, ${other}:${b}`);
  }

  #set(text) {
    this.follow(text);
    $("prompt").value = text;
    this.#send(text);
  }
}

function parsed(text) {
  return text.split(",").map((part) => part.split(":")).map(([name, weight]) => [
    name.trim().toLowerCase(), weight === undefined ? 1 : Number(weight),
  ]).filter(([name]) => name);
}

/** 50, 50 -> 1, 1 */
function shortest(a, b) {
  const divide = (m, n) => (n ? divide(n, m % n) : m);
  const by = divide(a, b) || 1;
  return [a / by, b / by];
}
