// The live picture: WebRTC, or JPEGs where that does not connect within three seconds.
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
    image.addEventListener("error", () => { image.hidden = true; }); // no broken picture on the screen or on air
    image.addEventListener("load", () => { image.hidden = this.by !== "MJPEG"; });
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

  /** The server is gone: the last picture stays, and nothing is tried. */
  freeze() {
    this.#attempt += 1;
    this.#peer?.close();
    this.#peer = null;
    this.#id = null;
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

  /** Whether it connects in time. */
  async #webrtc(attempt) {
    const peer = new RTCPeerConnection();
    this.#peer = peer;
    let tell;
    const connected = new Promise((resolve) => { tell = resolve; });
    peer.addTransceiver("video", { direction: "recvonly" });
    peer.ontrack = (event) => {
      if ("playoutDelayHint" in event.receiver) event.receiver.playoutDelayHint = 0;
      this.#video.srcObject = new MediaStream([event.track]);
      this.#video.play().catch(() => {});
    };
    peer.onconnectionstatechange = () => {
      if (peer.connectionState === "connected") tell(true);
      if (!["failed", "closed"].includes(peer.connectionState)) return;
      tell(false);
      if (this.by === "WebRTC" && attempt === this.#attempt) this.connect("mjpeg");
    };
    const over = setTimeout(() => tell(false), PATIENCE_MS);
    this.#negotiate(peer, attempt).catch(() => tell(false));
    const works = await connected;
    clearTimeout(over);
    if (works && attempt === this.#attempt) this.#say("WebRTC");
    return works;
  }

  async #negotiate(peer, attempt) {
    await peer.setLocalDescription(await peer.createOffer());
    await gathered(peer);
    const answer = await request("POST", "/api/webrtc", { sdp: peer.localDescription.sdp, ...this.#look });
    if (peer !== this.#peer || attempt !== this.#attempt) { // given up meanwhile
      await request("DELETE", `/api/webrtc/${answer.id}`);
      return;
    }
    this.#id = answer.id;
    await peer.setRemoteDescription({ type: "answer", sdp: answer.sdp });
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
