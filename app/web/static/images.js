// Pictures as the style: which one, and how strongly it counts.
import { made, row } from "./keys.js";

const LONGEST = 448; // pixels: more than image encoders see
const LAYERS = {
  style: "How strongly the picture counts in the layers that make the style; none: as the slider says",
  layout: "How strongly it counts in the layers that arrange things; none: as the slider says",
};
const place = document.getElementById("images");

export class StyleImages {
  #names = [];
  #images = {};
  #pictures = {};

  /** wire(input): has a slider send its value;  ask(method, path, body): of the server */
  constructor(wire, ask) {
    this.wire = wire;
    this.ask = ask;
  }

  /** The style images that the bundle takes. */
  bundle(names) {
    if (this.#names.join() === names.join()) return;
    this.#names = names;
    this.#pictures = {};
    place.hidden = !names.length;
    place.replaceChildren(place.querySelector("legend"), ...names.flatMap((name) => this.#rows(name)));
    this.#show();
  }

  /** What the settings have now. */
  follow(images) {
    this.#images = images;
    this.#show();
  }

  #show() {
    for (const name of this.#names) {
      const picture = this.#images[name]?.picture ?? "";
      for (const one of place.querySelectorAll(`[data-key^="images.${name}."]`)) one.disabled = !picture;
      if (this.#pictures[name] === picture) continue;
      this.#pictures[name] = picture;
      const thumb = document.getElementById(`thumb-${name}`);
      thumb.hidden = !picture;
      if (picture) thumb.src = `/api/images/${name}?of=${encodeURIComponent(picture)}`;
    }
  }

  /** The slider of its scale with the button of its picture, and the scales of layers below it, folded. */
  #rows(name) {
    const file = made("input", { type: "file", accept: "image/*", className: "unseen" });
    file.setAttribute("aria-label", `Picture of ${name}`);
    file.addEventListener("change", () => this.#take(name, file));
    const thumb = made("img", { id: `thumb-${name}`, alt: "", hidden: true });
    const chosen = made("label", { className: "button", title: "Choose a picture" }, thumb, "Picture", file);
    const input = made("input", { id: `image-${name}`, type: "range", min: 0, max: 2, step: 0.01, disabled: true });
    input.dataset.key = `images.${name}.scale`;
    this.wire(input);
    const label = made("label", { htmlFor: input.id, textContent: name });
    const scale = made("div", { className: "slider shown" }, label, input, made("output", { htmlFor: input.id }), chosen);
    scale.title = "How strongly the picture counts: 0 not at all";
    const layers = Object.entries(LAYERS).map(([layer, about]) => {
      const one = row({ key: `images.${name}.${layer}`, kind: "number", least: 0, most: 2, none: true }, layer);
      one.title = about;
      this.wire(one.querySelector("input"));
      return one;
    });
    return [scale, made("details", {}, made("summary", { textContent: `${name}: layers` }), ...layers)];
  }

  async #take(name, input) {
    const [file] = input.files;
    input.value = "";
    if (!file) return;
    const picture = await smaller(file).catch(() => file); // the server says what is wrong with it
    await this.ask("PUT", `/api/images/${name}`, picture);
  }
}

/** A picture upright and no larger than an encoder sees, as a JPEG. */
async function smaller(file) {
  const bitmap = await createImageBitmap(file);
  const share = Math.min(1, LONGEST / Math.max(bitmap.width, bitmap.height));
  const canvas = made("canvas", { width: Math.round(bitmap.width * share), height: Math.round(bitmap.height * share) });
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("no picture"))), "image/jpeg", 0.92);
  });
}
