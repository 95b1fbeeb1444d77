// The WebSocket of a session: stats, and settings that anybody changed. It opens itself again for ever.

const SOONEST_MS = 500;
const LATEST_MS = 5000;

export class Live {
  #handlers;
  #wait = SOONEST_MS;

  /** handlers: opened(), closed(), and one for each type of message, called with it */
  constructor(handlers) {
    this.#handlers = handlers;
    this.#open();
  }

  #open() {
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/live`);
    socket.onopen = () => {
      this.#wait = SOONEST_MS;
      this.#handlers.opened?.();
    };
    socket.onmessage = (event) => {
      const message = JSON.parse(event.data);
      this.#handlers[message.type]?.(message);
    };
    socket.onclose = () => {
      this.#handlers.closed?.();
      setTimeout(() => this.#open(), this.#wait);
      this.#wait = Math.min(this.#wait * 2, LATEST_MS);
    };
  }
}
