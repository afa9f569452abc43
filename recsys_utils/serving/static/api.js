// Talking to the service: one function for JSON, errors as sentences, and what the service says about itself.

const KEY = "recsys-api-key";
export const about = { currency: "", synthetic: false, title: "", default: "", page: "", models: [], categories: [], stocks: true };

export class ServiceError extends Error {
  constructor(message, status = 0, requestId = "") {
    super(message);
    Object.assign(this, { status, requestId });
  }
}

export const apiKey = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

/** GET path, or POST body if there is one; path is relative to the page, so a prefix in front of the service does no harm. */
export async function api(path, body) {
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  if (apiKey.get()) headers["X-API-Key"] = apiKey.get();
  const options = body === undefined ? { headers } : { method: "POST", headers, body: JSON.stringify(body) };
  const answer = await fetch(`api/v1/${path}`, options).catch(() => {
    throw new ServiceError("The service does not answer. See whether it still runs, then try again.");
  });
  const made = await answer.json().catch(() => ({}));
  if (answer.ok) return made;
  throw new ServiceError(sentence(made, answer.status), answer.status, made.request_id ?? answer.headers.get("X-Request-ID") ?? "");
}

function sentence(made, status) {
  if (typeof made.error === "string") return made.error;
  return status >= 500 ? `The service failed with ${status}. Its log says more.` : `The service refused this with ${status}.`;
}

/** A path with a query; what is empty, false or missing is left out. */
export function query(path, values) {
  const kept = Object.entries(values).filter(([, value]) => value !== "" && value !== false && value !== null && value !== undefined);
  return kept.length ? `${path}?${new URLSearchParams(kept)}` : path;
}

export const at = (...parts) => parts.map(encodeURIComponent).join("/");

/** A list for a user. POST, because in a path an id like ".." would lead elsewhere. */
export function recommended({ user, model, n, price_min: low, price_max: high, ...rest }) {
  const asked = { ...rest, user_id: user, model_type: model, num_recommendations: Number(n),
    price_range_min: number(low), price_range_max: number(high) };
  return api("recommendations", Object.fromEntries(Object.entries(asked).filter(([, value]) => value !== "" && value !== null)));
}

const number = (text) => (text === undefined || text === "" ? null : Number(text));

export function money(value) {
  if (value === null || value === undefined || Number.isNaN(Number(value))) return "No price";
  const digits = Number(value).toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
  return `${about.currency}${digits}`;
}

/** A share in per cent, 0.1234 → 12.3 %; a change has its sign. */
export const percent = (value) => `${(100 * value).toLocaleString("en", { maximumFractionDigits: 1 }).replace("-", "−")} %`;

/** A change in points of per cent, with its sign and one decimal, so that a column lines up; "–" for none. */
const SIGNED = { signDisplay: "always", minimumFractionDigits: 1, maximumFractionDigits: 1 };
export const points = (value) => value === null ? "–" : `${(100 * value).toLocaleString("en", SIGNED).replace("-", "−")} pts`;

export const plural = (n, noun) => `${count(n)} ${noun}${n === 1 ? "" : "s"}`;

/** Which model chose, from how many purchases, and how fresh the receipts are. */
export function speaks({ primary_model: model, user_info: { total_purchases: all, last_purchase_date: last } }) {
  const since = last && new Date(last) > new Date(about.as_of) ? `, and a purchase of ${day(last)} since then` : "";
  const from = all ? ` from ${plural(all, "purchase")}` : "";
  return `${modelName(model)} chose these${from}. Receipts until ${day(about.as_of)}${since}.`;
}

/** The models that were tried, in their order; "" where the first had enough to say. */
export const chain = ({ fallback }) => fallback.map(({ model, outcome }) => `${modelName(model)}: ${outcome}`).join(" → ");

export const count = (value) => Number(value).toLocaleString("en", { maximumFractionDigits: 4 });
export const day = (text) => (text ? new Date(text).toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric" }) : "never");
export const nameOf = (item) => item.item_name || item.item_id;

/** A model's title by its name; what people picked comes from the shop. */
export const modelName = (name) => about.models.find((model) => model.name === name)?.title ?? words(name);

/** low_average → low average. */
export const words = (name) => String(name ?? "unknown").replaceAll("_", " ");
