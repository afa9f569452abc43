// Live queue: a shopper's events, the pool they make, and what is shown next.

import { api, at, count, nameOf, words } from "./api.js";
import { card, el, empty, failed, fill, titled } from "./ui.js";
import { combobox, findItems, findUsers } from "./search.js";

const ACTIONS = { view: ["View", "viewed"], cart: ["To cart", "put into the cart"], remove_from_cart: ["Remove", "taken out of the cart"],
  purchase: ["Buy", "bought"] };
const WHY = { events: "From what the shopper did", cf: "Close to the shopper's interests", category: "Popular in the favourite category",
  popular: "Popular with everyone" };
const root = document.querySelector("#view-queue");
const form = root.querySelector("form");
const results = root.querySelector(".results");
const user = form.elements.user;
let shown = [];
let before = new Map();      // item → [counter, score] as last seen, to show what moved
let places = {};
let cart = new Set();       // ids of what is in the cart: nothing else can be taken out of it

export function start(go) {
  combobox(user, findUsers, () => form.requestSubmit());
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    go({ user: user.value.trim() });
  });
}

export function open(params) {
  user.value = params.get("user") ?? "";
  [shown, before] = [[], new Map()];
  if (!user.value) return results.replaceChildren(empty("No shopper chosen", "Open the queue of a known shopper, or of a new one under any name."));
  return fill(results, () => api(`queue/${at(user.value)}`), (answer) => {
    const made = layout();
    draw(answer);
    return made;
  });
}

function layout() {
  places = { shown: el("div", {}), pool: el("div", {}), error: el("div", {}), weights: el("p.soft.small", {}),
    bought: el("div", {}), other: el("div", {}), log: el("div.log", { role: "log", "aria-label": "What happened" }) };
  return [el("div.heading", {}, el("h2", {}, `Queue of ${user.value}`), el("button.main", { type: "button", onclick: next }, "Show the next products")),
    places.weights, places.error, places.shown,
    el("div.columns.turned", {}, places.pool, el("div", {}, other(), places.bought,
      el("section.panel", {}, el("h3", {}, "What happened"), places.log)))];
}

function draw({ pool: stored, names, purchased, purchased_count: all, weights, cart: inCart }) {
  cart = new Set(inCart);
  const items = stored.map(([id, counter, score]) => ({ item_id: id, item_name: names[id], counter, score }));
  const worth = Object.entries(weights).map(([kind, value]) => `${words(kind)} ${value > 0 ? "+" : "−"}${Math.abs(value)}`).join(", ");
  places.weights.textContent = `Score: ${worth}. A purchase takes the product out for good.`;
  places.bought.replaceChildren(...(purchased.length ? [bought(purchased, all, names)] : []));
  const turn = shown.map((item, n) => card(item, n + 1, el("p.reason", {}, `${WHY[item.source]}, shown ${times(item.counter)}`),
    likely(item.purchase_probability), actions(item)));
  places.shown.replaceChildren(...(turn.length ? [el("ol.cards.queued", { "aria-label": "Shown now" }, turn)] : []));
  places.pool.replaceChildren(items.length ? pool(items) : empty("The queue is empty", "Show the next products, or let the shopper view one."));
  before = new Map(items.map((item) => [item.item_id, [item.counter, item.score]]));
}

/** Do something, then show the queue as it is now; the focus stays on the button that was pressed, or goes to the first of all. */
async function refresh(work) {
  const pressed = document.activeElement?.getAttribute("aria-label");
  const within = Object.values(places).find((place) => place.contains(document.activeElement));
  places.error.replaceChildren();
  try {
    draw(await work());
  } catch (error) {
    places.error.replaceChildren(failed(error));
  }
  if (document.activeElement !== document.body) return;
  const again = [...within?.querySelectorAll("button") ?? []].find((button) => button.getAttribute("aria-label") === pressed);
  (again ?? results.querySelector("button")).focus();
}

/** An id of its own for every click: an event that is delivered twice counts once. randomUUID asks for https elsewhere than here. */
const unique = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

const post = (item, kind) => refresh(async () => {
  await api("events", { events: [{ user_id: user.value, item_id: item.item_id, event_type: kind, event_id: unique() }] });
  if (kind === "purchase") shown = shown.filter((one) => one.item_id !== item.item_id);
  note(`${nameOf(item)} ${ACTIONS[kind][1]}.`);
  return api(`queue/${at(user.value)}`);
});

const next = () => refresh(async () => {
  const answer = await api(`queue/${at(user.value, "next")}`, {});
  shown = answer.shown;
  note(shown.length ? `Shown: ${shown.map(nameOf).join(", ")}.` : "Nothing is left that was not bought.");
  return answer;
});

function note(text) {
  places.log.prepend(el("p", {}, el("time", {}, new Date().toLocaleTimeString("en-GB")), " ", text));
  while (places.log.childElementCount > 12) places.log.lastElementChild.remove();
}

const actions = (item) => el("div.row", { role: "group", "aria-label": nameOf(item) }, Object.entries(ACTIONS).filter(([kind]) =>
  kind !== "remove_from_cart" || cart.has(item.item_id)).map(([kind, [name]]) =>
  el(`button.quiet.${kind}`, { type: "button", "aria-label": `${name}: ${nameOf(item)}`, onclick: () => post(item, kind) }, name)));

const likely = (share) => (share === null ? null : el("p.soft.small", {}, `Bought in ${Math.round(share * 100)} % of such cases`));

const times = (n) => (n === 1 ? "once" : `${n} times`);

const bought = (ids, all, names) => el("details.panel", {}, el("summary", {}, `Bought, never shown again: ${count(all)}`),
  el("ul.plain", {}, ids.map((id) => el("li", {}, names[id] ?? id))),
  all > ids.length ? el("p.soft.small", {}, `The first ${count(ids.length)} by id.`) : null);

function pool(items) {
  const heads = ["Product", "Times shown", "Score", "Event"].map((name) => el("th", { scope: "col", role: "columnheader" }, name));
  return el("div.scroll", { tabindex: 0, role: "region", "aria-label": "Pool" }, el("table.pool", { role: "table" },
    el("caption", {}, `The pool: ${count(items.length)} products as the database keeps them`),
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, heads)), el("tbody", { role: "rowgroup" }, items.map(row))));
}

/** The roles say again what a table is: on a phone its rows are laid out as a grid. */
function row(item) {
  const was = before.get(item.item_id);
  const cell = (value, old) => el(`td${was && old !== value ? ".moved" : ""}`, { role: "cell" }, count(value),
    was && old !== value ? el("span.delta", {}, ` ${value > old ? "+" : "−"}${Math.abs(value - old)}`) : null);
  return el(`tr${before.size && !was ? ".moved" : ""}`, { role: "row" }, el("th.left", { scope: "row", role: "rowheader" }, titled(item)),
    cell(item.counter, was?.[0]), cell(item.score, was?.[1]), el("td", { role: "cell" }, actions(item)));
}

/** Any product of the catalogue, also one that is not in the pool. */
function other() {
  const input = el("input", { id: "queue-item", placeholder: "Search a product", maxlength: 200 });
  const box = el("section.panel", {}, el("h3", {}, "Another product"),
    el("div.field.wide", {}, el("label", { for: input.id }, "Product"), input), places.other);
  combobox(input, findItems, (id, name) => places.other.replaceChildren(actions({ item_id: id, item_name: name })));
  return box;
}
