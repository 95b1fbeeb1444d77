// The keyframe: a picture that a visitor painted over the frame on show.
import { request } from "./api.js";

const $ = (id) => document.getElementById(id);

export function wireKeyframe(tried) {
  $("keyframe-file").addEventListener("change", async () => {
    const [file] = $("keyframe-file").files;
    $("keyframe-file").value = ""; // the same file may be sent again when it was painted on
    if (file) await tried(() => request("PUT", "/api/keyframe", file));
  });
  $("keyframe-forget").addEventListener("click", () => tried(() => request("DELETE", "/api/keyframe")));
}

export function followKeyframe(settings) {
  $("keyframe-forget").hidden = !settings.stages.anchor.picture;
}
