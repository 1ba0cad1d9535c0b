// Where a visitor's place is: at the kiosk that the page came from, or at the box for which a dispatcher gives a ticket.
import { Refusal, bearer, request, upload } from "./api.js";

// A box that is alive answers in this time, also when it is busy.
const ALIVE_MS = 1500;

// The url and what is told there of whom it is for; `dispatcher` is the path that gives tickets, if there is one. `lost`
// is the url of a box that went away.
export async function takePlace(dispatcher, { id, file }, seed, lost) {
  if (!dispatcher) return { url: "", whom: { portrait: id, seed } };
  const { url, ticket } = await reserve(dispatcher, { portrait: file ? "own" : id, lost });
  const portrait = file ? await upload(file, `${url}/api/portraits`, bearer(ticket)) : { id, warning: "" };
  return { url, whom: { portrait: portrait.id, seed, ticket }, warning: portrait.warning };
}

async function reserve(dispatcher, wish) {
  const headers = { "Content-Type": "application/json" };
  try {
    return await request(dispatcher, { method: "POST", headers, body: JSON.stringify(wish) });
  } catch (error) {
    // A dispatcher that starts anew gives answers of its host.
    throw error.reason === "failed" ? new Refusal("unreachable", error.message) : error;
  }
}

// Between a ticket and its use somebody else's box may have come and gone: another ticket helps.
export function atBox(error) {
  if (!(error instanceof Refusal) || !["full", "ticket"].includes(error.reason)) return error;
  return new Refusal("reconnect", error.message);
}

export async function isAlive(url) {
  try {
    await fetch(`${url}/healthz`, { cache: "no-store", signal: AbortSignal.timeout(ALIVE_MS) });
    return true;
  } catch {
    return false;
  }
}
