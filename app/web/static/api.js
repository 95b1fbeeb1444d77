// Requests to the server. What it refuses is an Error with the server's own line; `restart` says that a restart would do.

export class Refused extends Error {
  constructor(text, restart) {
    super(text);
    this.restart = restart;
  }
}

export async function request(method, path, body) {
  const json = body !== undefined && typeof body !== "string" && !(body instanceof Blob);
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers: json ? { "content-type": "application/json" } : {},
      body: json ? JSON.stringify(body) : body,
    });
  } catch {
    throw new Refused("the server does not answer", false);
  }
  const typed = answer.headers.get("content-type") ?? "";
  const said = typed.includes("json") ? await answer.json() : await answer.text();
  if (!answer.ok) throw new Refused(said.error ?? `${answer.status} ${answer.statusText}`, said.restart === true);
  return said;
}

/** One value a line: a path may have spaces. */
export function lines(text) {
  return text.split("\n").map((line) => line.trim()).filter(Boolean);
}

/** "stages.fuse.weight", 0.5 -> {stages: {fuse: {weight: 0.5}}} */
export function nested(path, value) {
  return path.split(".").reduceRight((inner, key) => ({ [key]: inner }), value);
}

/** The value at "stages.fuse.weight". */
export function at(settings, path) {
  return path.split(".").reduce((inner, key) => inner?.[key], settings);
}
