// Shopper: a shopper ID in, products as cards out. Who has none names a few products instead.

import { about, api, chain, day, nameOf, query, recommended, speaks } from "./api.js";
import { card, cards, choose, el, empty, fill, meant } from "./ui.js";
import { combobox, findItems, findUsers } from "./search.js";
import { similar } from "./dialogs.js";

const root = document.querySelector("#view-shopper");
const form = root.querySelector("form");
const liked = root.querySelector(".liked");
const discoveries = root.querySelector(".discoveries");
const NEW_FOR_YOU = "two_stage_new";
const { user, n, model, category, sold, fresh } = form.elements;
const named = new Map();        // names of the products that were picked, by id
let likes = [];
let go;

export function start(to) {
  go = to;
  const submit = () => form.requestSubmit();
  combobox(user, findUsers, submit);
  combobox(form.querySelector("#shopper-like"), findItems, (id, name) => {
    named.set(id, name);
    likes = [...new Set([...likes, id])];
    user.value = form.querySelector("#shopper-like").value = "";
    submit();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!user.value.trim() && !likes.length) return warn();
    go({ user: user.value.trim(), likes: user.value.trim() ? "" : likes.join("\n"), n: n.value === "5" ? "" : n.value,
      model: model.value === about.page ? "" : model.value, category: category.value, sold: sold.checked, fresh: fresh.checked });
  });
  user.addEventListener("input", () => warn(false));
}

export function open(params) {
  user.value = params.get("user") ?? "";
  likes = (params.get("likes") ?? "").split("\n").filter(Boolean);
  liked.replaceChildren(...likes.map(chip));
  if (likes.length) form.querySelector(".likes").open = true;
  if (params.has("model")) form.querySelector(".more").open = true;
  choose(n, params.get("n"), "5");
  choose(model, params.get("model"), about.page);
  choose(category, params.get("category"));
  sold.checked = params.get("sold") === "true";
  fresh.checked = params.get("fresh") === "true";
  warn(false);
  discoveries.replaceChildren();
  return fill(root.querySelector(".results"), ask, picks);
}

const chip = (id) => el("button.chip", { type: "button", "aria-label": `Take away ${named.get(id) ?? id}`, onclick: () => {
  likes = likes.filter((one) => one !== id);
  form.querySelector("#shopper-like").focus();
  if (likes.length) form.requestSubmit();
  else go({});
} }, named.get(id) ?? id, " ✕");

/** Names of the products that only an address named. */
async function learn() {
  for (const id of likes.filter((one) => !named.has(one))) {
    const { items } = await api(query("items", { q: id, limit: 100 }));
    named.set(id, nameOf(items.find((item) => item.item_id === id) ?? { item_id: id }));
  }
  liked.replaceChildren(...likes.map(chip));
}

function ask() {
  const filters = { category: category.value || null, in_stock_only: about.stocks && !sold.checked };
  const own = { ...filters, exclude_purchased: fresh.checked };
  if (user.value) return recommended({ user: user.value, model: model.value, n: n.value, ...own });
  if (likes.length) return learn().then(() => api("recommendations/custom", { items: likes, n: Number(n.value), ...own }));
  return api(query("recommendations/anonymous", { n: n.value, ...filters }));
}

function picks(answer) {
  const found = answer.recommendations;
  if (user.value && answer.user_info.user_type !== "unknown") discover(found);
  if (!found.length) return [heading(answer), empty("Nothing fits", "No product is left with these choices. Take one of them back.")];
  const placed = found.map((item, place) => [item, place + 1]);
  const habits = placed.filter(([item]) => item.last_purchase_date);
  const news = placed.filter(([item]) => !item.last_purchase_date);
  return [heading(answer), habits.length ? group("Buys again", "Bought before, and due or liked", habits) : null,
    news.length ? group(habits.length ? "New to try" : "", "Never bought by this shopper", news) : null];
}

/** A row of what a known shopper never bought, without what is listed above it. */
function discover(found) {
  const chosen = about.models.some((one) => one.name === NEW_FOR_YOU) ? NEW_FOR_YOU : model.value;
  const filters = { category: category.value || null, in_stock_only: about.stocks && !sold.checked };
  return fill(discoveries, () => recommended({ user: user.value, model: chosen, n: 5, new_items: 5, exclude_purchased: true,
    exclude_items: found.map((item) => item.item_id), ...filters }), news);
}

function news({ recommendations: items, notes }) {
  if (!items.length) return null;
  const told = ["Products that this shopper never bought, with the reason for each.", ...notes].join(" ");
  return group("New for you", told, items.map((item, place) => [item, place + 1]));
}

/** Habits or discoveries, with a title where there are both. */
const group = (title, text, placed) => el("section.group", {}, title ? el("div.heading", {}, el("h3", {}, title), el("p.soft.small", {}, text)) : null,
  cards(placed.map(([item, place]) => card(item, place, el("p.reason", {}, item.recommendation_reason), last(item), like(item))),
    title || "Products for you"));

const last = (item) => (item.last_purchase_date ? el("p.small", {}, "Last bought ", el("b", {}, day(item.last_purchase_date))) : null);

const like = (item) => el("button.quiet", { type: "button", "aria-label": `More like ${nameOf(item)}`, onclick: () => similar(item, true) },
  "More like this");

function heading(answer) {
  const title = user.value ? `For ${answer.user_id}` : likes.length ? "Based on the products you named" : "What most people buy";
  const isNew = user.value && answer.user_info.user_type === "unknown";
  return el("div.heading", {}, el("h2", {}, title),
    el("p.soft", {}, isNew ? "This shopper ID is new to us. " : "", user.value || likes.length ? speaks(answer) : ""),
    isNew ? meant(answer.near, (id) => { user.value = id; form.requestSubmit(); }) : null,
    isNew && chain(answer) ? el("p.soft.small.chain", {}, chain(answer)) : null);
}

function warn(on = true) {
  form.querySelector(".warning")?.remove();
  user.toggleAttribute("aria-invalid", on);
  user.removeAttribute("aria-describedby");
  if (!on) return;
  user.closest(".field").append(el("p.warning", { id: "shopper-warning", role: "alert" }, "Enter a shopper ID first, or choose one from the list."));
  user.setAttribute("aria-describedby", "shopper-warning");
  user.focus();
}
