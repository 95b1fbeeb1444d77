// The bare picture. The server has checked what the address asks for.
import { Live } from "./live.js";
import { Preview } from "./preview.js";

const asked = new URLSearchParams(location.search);
const look = { view: asked.get("view") ?? "styled", overlay: asked.get("overlay") ?? "none" };
document.documentElement.classList.toggle("cover", asked.get("fit") === "cover");

const preview = new Preview(document.getElementById("video"), document.getElementById("image"));
preview.look(look);

// The socket tells that the server is there; when it is back, so is the picture.
new Live({ opened: () => preview.connect(asked.get("by") ?? "auto"), closed: () => preview.close() });
