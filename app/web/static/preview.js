// The live picture: WebRTC, or JPEGs where that shows nothing within three seconds.
import { request } from "./api.js";

const PATIENCE_MS = 3000;

export class Preview extends EventTarget {
  #video;
  #image;
  #look = { view: "styled", overlay: "none" };
  #peer = null;
  #id = null;
  #attempt = 0; // what belongs to an older attempt is left

  /** by: "", "WebRTC" or "MJPEG"; a "change" event tells of a new one */
  by = "";

  constructor(video, image) {
    super();
    this.#video = video;
    this.#image = image;
  }

  /** Look at this view with this overlay from now on. */
  look(look) {
    this.#look = look;
    if (this.by === "MJPEG") this.#image.src = this.#stream();
    else if (this.#id) request("PATCH", `/api/webrtc/${this.#id}`, look).catch(() => {});
  }

  /** wish: "auto", "webrtc" or "mjpeg" */
  async connect(wish) {
    this.close();
    const attempt = this.#attempt;
    if (wish !== "mjpeg" && "RTCPeerConnection" in window) {
      if (await this.#webrtc(attempt)) return;
      if (attempt !== this.#attempt) return;
      this.#leave();
    }
    this.#mjpeg();
  }

  close() {
    this.#attempt += 1;
    this.#leave();
    this.#image.removeAttribute("src");
    this.#say("");
  }

  #leave() {
    this.#peer?.close();
    this.#peer = null;
    if (this.#id) request("DELETE", `/api/webrtc/${this.#id}`).catch(() => {});
    this.#id = null;
    this.#video.srcObject = null;
  }

  #mjpeg() {
    this.#image.src = this.#stream();
    this.#say("MJPEG");
  }

  #stream() {
    return `/stream.mjpeg?${new URLSearchParams({ ...this.#look, at: Date.now() })}`;
  }

  /** Whether it works: true once a picture came. */
  async #webrtc(attempt) {
    const peer = new RTCPeerConnection();
    this.#peer = peer;
    let shows;
    const shown = new Promise((resolve) => { shows = resolve; });
    peer.addTransceiver("video", { direction: "recvonly" });
    peer.ontrack = (event) => {
      if ("playoutDelayHint" in event.receiver) event.receiver.playoutDelayHint = 0;
      this.#video.srcObject = new MediaStream([event.track]);
      this.#video.onloadeddata = () => shows(true);
      this.#video.play().catch(() => {});
    };
    peer.onconnectionstatechange = () => {
      if (!["failed", "closed"].includes(peer.connectionState)) return;
      shows(false);
      if (this.by === "WebRTC" && attempt === this.#attempt) this.connect("mjpeg");
    };
    const over = setTimeout(() => shows(false), PATIENCE_MS);
    try {
      await peer.setLocalDescription(await peer.createOffer());
      await gathered(peer);
      const answer = await request("POST", "/api/webrtc", { sdp: peer.localDescription.sdp, ...this.#look });
      if (attempt !== this.#attempt) {
        request("DELETE", `/api/webrtc/${answer.id}`).catch(() => {});
        return false;
      }
      this.#id = answer.id;
      await peer.setRemoteDescription({ type: "answer", sdp: answer.sdp });
      const works = await shown;
      if (works && attempt === this.#attempt) this.#say("WebRTC");
      return works;
    } catch {
      return false;
    } finally {
      clearTimeout(over);
    }
  }

  #say(by) {
    this.by = by;
    this.#video.hidden = by !== "WebRTC";
    this.#image.hidden = by !== "MJPEG";
    this.dispatchEvent(new Event("change"));
  }
}

function gathered(peer) {
  return new Promise((resolve) => {
    if (peer.iceGatheringState === "complete") resolve();
    peer.onicegatheringstatechange = () => peer.iceGatheringState === "complete" && resolve();
    setTimeout(resolve, 1000); // what is there by then will do
  });
}
