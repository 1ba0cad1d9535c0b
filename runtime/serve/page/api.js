// The server's plain HTTP requests; every failure is a Refusal with a sentence for the visitor.

export class Refusal extends Error {
  constructor(reason, message, retryAfter = 0) {
    super(message);
    this.reason = reason;
    this.retryAfter = retryAfter;
  }
}

export async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, cache: "no-store" });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Refusal("unreachable", "The kiosk does not answer.");
  }
  if (response.ok) return response.status === 204 ? null : response.json();
  const { error } = await response.json().catch(() => ({}));
  throw new Refusal(
    error?.reason ?? "failed",
    error?.message ?? "Something went wrong in the kiosk; try again.",
    Number(response.headers.get("Retry-After") ?? 0),
  );
}

export const describe = () => request("/api/kiosk");

// What lets in whoever has a ticket.
export const bearer = (ticket) => (ticket ? { Authorization: `Bearer ${ticket}` } : {});

export function requireSize(file, most) {
  if (file.size > most) {
    throw new Refusal("too-large", `The picture is larger than ${Math.floor(most / 2 ** 20)} MB; choose a smaller one.`);
  }
}

export function upload(file, path = "/api/portraits", headers = {}) {
  return request(path, { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream", ...headers } });
}
