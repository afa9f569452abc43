// Shopper: a client ID in, products as cards out. Who has none names a few products instead.

import { about, api, count, modelName, nameOf, query, recommended } from "./api.js";
import { card, cards, choose, el, empty, fill } from "./ui.js";
import { combobox, findItems, findUsers } from "./search.js";
import { similar } from "./dialogs.js";

const root = document.querySelector("#view-shopper");
const form = root.querySelector("form");
const liked = root.querySelector(".liked");
const { user, n, model, category, stock, fresh } = form.elements;
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
    go({ user: user.value.trim(), likes: user.value.trim() ? "" : likes.join("\n"), n: n.value === "5" ? "" : n.value, model: model.value,
      category: category.value, stock: stock.checked, fresh: fresh.checked });
  });
  user.addEventListener("input", () => warn(false));
}

export function open(params) {
  user.value = params.get("user") ?? "";
  likes = (params.get("likes") ?? "").split("\n").filter(Boolean);
  liked.replaceChildren(...likes.map(chip));
  if (likes.length) form.querySelector("details").open = true;
  choose(n, params.get("n"), "5");
  choose(model, params.get("model"), about.default);
  choose(category, params.get("category"));
  stock.checked = params.get("stock") === "true";
  fresh.checked = params.get("fresh") === "true";
  warn(false);
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
  const filters = { category: category.value || null, in_stock_only: stock.checked };
  const own = { ...filters, exclude_purchased: fresh.checked };
  if (user.value) return recommended({ user: user.value, model: model.value, n: n.value, ...own });
  if (likes.length) return learn().then(() => api("recommendations/custom", { items: likes, n: Number(n.value), ...own }));
  return api(query("recommendations/anonymous", { n: n.value, ...filters }));
}

function picks(answer) {
  if (!answer.recommendations.length) return empty("Nothing fits", "No product is left with these choices. Take one of them back.");
  return [heading(answer), cards(answer.recommendations.map((item, place) => card(item, place + 1,
    el("p.reason", {}, item.recommendation_reason), like(item))), "Products for you")];
}

const like = (item) => el("button.quiet", { type: "button", "aria-label": `More like ${nameOf(item)}`, onclick: () => similar(item) },
  "More like this");

function heading(answer) {
  if (!user.value) return el("div.heading", {}, el("h2", {}, likes.length ? "With what you named in mind" : "What most people buy"));
  const known = answer.user_info.user_type !== "unknown";
  const text = known ? `Chosen by ${modelName(answer.primary_model)} from ${count(answer.user_info.total_purchases)} purchases.`
    : "This client ID is new to us, so here is what most people buy.";
  return el("div.heading", {}, el("h2", {}, `For ${answer.user_id}`), el("p.soft", {}, text));
}

function warn(on = true) {
  form.querySelector(".warning")?.remove();
  user.toggleAttribute("aria-invalid", on);
  user.removeAttribute("aria-describedby");
  if (!on) return;
  user.closest(".field").append(el("p.warning", { id: "shopper-warning", role: "alert" }, "Enter a client ID first, or choose one from the list."));
  user.setAttribute("aria-describedby", "shopper-warning");
  user.focus();
}
