// Small parts that every tab uses: elements, states, meters, cards, dialogs. Text of others only ever becomes a text node.

import { about, modelName, money, nameOf, ServiceError } from "./api.js";

/** el("p.soft", {id: "a"}, "text", node): an element; on… are listeners, false and null attributes are left out. */
export function el(spec, attributes = {}, ...children) {
  const [tag, ...classes] = spec.split(".");
  const node = document.createElement(tag);
  if (classes.length) node.className = classes.join(" ");
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

const turns = new WeakMap();

/** Show the skeleton, then what render makes of the answer; or the error with a way to try again. An older answer never replaces a newer one. */
export async function fill(place, load, render, skeleton = waiting(3)) {
  const turn = (turns.get(place) ?? 0) + 1;
  turns.set(place, turn);
  const held = place.contains(document.activeElement);
  place.setAttribute("aria-busy", "true");
  place.replaceChildren(skeleton);
  let made;
  try {
    made = render(await load());
  } catch (error) {
    made = failed(error, () => fill(place, load, render, skeleton));
  }
  if (turns.get(place) !== turn) return;
  place.removeAttribute("aria-busy");
  place.replaceChildren(...[made].flat().filter(Boolean));
  if (held) focusOn(place);
  say(place);
}

/** What was pressed is gone: go on from its place. */
function focusOn(place) {
  place.tabIndex = -1;
  place.focus();
}

/** Tell a screen reader what is new: its title and how much there is, not all of it. An error tells itself. */
export function say(place) {
  const [title, n] = [place.querySelector("h2, .big, caption")?.textContent, place.querySelectorAll(".card, .line, tbody tr").length];
  if (title && !place.querySelector("[role=alert]")) document.querySelector("#said").textContent = n ? `${title}: ${n} shown` : title;
}

const waiting = (n) =>
  el("div.cards", {}, el("p.vh", {}, "Loading …"), Array.from({ length: n }, () => el("div.card.ghost", { "aria-hidden": "true" })));

export const empty = (title, text, ...more) => el("div.state", {}, el("p.big", {}, title), el("p.soft", {}, text), ...more);

export function failed(error, again) {
  if (!(error instanceof ServiceError)) console.error(error);
  const known = error instanceof ServiceError;
  if (error.status === 401) askKey();
  return el("div.state.error", { role: "alert" },
    el("p.big", {}, title(error.status, known)),
    el("p", {}, known ? error.message : "The page could not show this answer."),
    error.requestId ? el("p.soft.small", {}, "Request ", el("code", {}, error.requestId)) : null,
    again ? el("button.quiet", { type: "button", onclick: again }, "Try again") : null);
}

function title(status, known) {
  if (!known) return "Something went wrong here";
  if (status === 0) return "No connection";
  if (status === 503) return "Not ready yet";
  if (status === 401) return "A key is needed";
  return status >= 500 ? "The service has a problem" : "That did not work";
}

/** A bar whose width is the value, 0…1. */
export function meter(label, value) {
  const known = typeof value === "number";
  const share = Math.min(1, Math.max(0, known ? value : 0));
  const fillin = el("span.fill");
  fillin.style.width = `${share * 100}%`;
  return el("div.meter", { role: "meter", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": 1, "aria-valuenow": share,
    "aria-valuetext": known ? `${Math.round(share * 100)} %` : "unknown" },
  el("span.name", {}, label), el("span.track", {}, fillin), el("span.value", {}, known ? `${Math.round(share * 100)} %` : "–"));
}

/** A badge; none where the shop's data know no stock at all. */
export function stock(item) {
  const said = about.stocks && { in_stock: ["in", "In stock"], out_of_stock: ["out", "Sold out"], unknown: ["unknown", "Stock unknown"] }[item.stock];
  return said ? el(`span.badge.${said[0]}`, {}, said[1]) : null;
}

/** A picture for a product without one: its initials on a colour of its category. */
export function tile(item) {
  const words = String(nameOf(item)).split(/\s+/).filter((word) => /^[\p{L}\p{N}]/u.test(word));
  const initials = words.length > 1 ? words[0][0] + words[1][0] : (words[0] ?? "?").slice(0, 2);
  const node = el("span.tile", { "aria-hidden": "true" }, initials.toUpperCase());
  node.style.setProperty("--hue", hue(item));
  return node;
}

/** The colour of a category: one of its own among the shop's; of the product itself where it has none. */
function hue(item) {
  const place = about.categories.indexOf(item.category);
  if (place >= 0) return Math.round(15 + (360 * place) / about.categories.length);
  return [...String(item.category ?? nameOf(item))].reduce((sum, c) => (sum * 31 + c.codePointAt(0)) % 360, 7);
}

/** Lists beside each other; on a phone they are swiped. */
export const beside = (columns) => el(`div.beside.of${columns.length}${columns.length > 1 ? ".swipe" : ""}`,
  columns.length > 1 ? { tabindex: 0, role: "region", "aria-label": "Lists side by side" } : {}, columns);

/** How an item's place here differs from the other list's; other: places by id, or nothing to compare with. */
export function moved(item, place, other) {
  if (!other) return null;
  const there = other.get(item.item_id);
  if (there === undefined) return el("span.tag.only", {}, "only here");
  if (there === place) return el("span.tag.both", {}, "same place");
  return el("span.tag.both", {}, there > place ? `↑ ${there - place}` : `↓ ${place - there}`,
    el("span.vh", {}, there > place ? " places higher than in the other" : " places lower than in the other"));
}

/** Places by id of a list. */
export const places = (items) => new Map(items.map((item, n) => [item.item_id, n + 1]));

/** Ids that may have been meant by an unknown one. */
export const meant = (ids, pick) => (ids.length ? el("p.near", {}, "Did you mean ", ids.map((id) =>
  el("button.chip", { type: "button", onclick: () => pick(id) }, id))) : null);

/** A slip of the address or another shopper: what was open is of what was shown before. */
export const closeDialogs = () => document.querySelectorAll("dialog[open]").forEach((box) => box.close());

/** One product as a card, marked with its category's colour; foot: what stands below it. */
export function card(item, rank, ...foot) {
  const node = el("li.card", {}, el("div.top", {}, tile(item), el("span.rank", {}, el("span.vh", {}, "Rank "), String(rank))),
    el("h3", {}, nameOf(item)),
    el("p.soft.small", {}, kind(item)),
    item.item_price === undefined ? null : el("p.price", {}, money(item.item_price), " ", stock(item)), ...foot);
  node.style.setProperty("--hue", hue(item));
  return node;
}

export const cards = (items, label) => el("ol.cards", { "aria-label": label }, items);
/** The category, and the id where that is not the name. */
export const kind = (item) => [item.category, nameOf(item) === item.item_id ? null : item.item_id].filter(Boolean).join(" · ");
export const titled = (item) => [nameOf(item), " ", el("span.soft.small", {}, kind(item))];

export const source = (name) => el("span.tag", {}, modelName(name));

/** What an address names in a select; what the select does not offer, or no address names, is the default. */
export function choose(select, value, otherwise = "") {
  select.value = value ?? otherwise;
  if (select.selectedIndex < 0) select.value = otherwise;
}

const dialog = document.querySelector("#dialog");

/** Open the dialog and fill it. */
export function show(heading, load, render) {
  dialog.querySelector("h2").textContent = heading;
  if (!dialog.open) dialog.showModal();
  return fill(dialog.querySelector(".body"), load, render, el("div.lines.ghost", {}, el("p.vh", {}, "Loading …")));
}

function askKey() {
  const key = document.querySelector("#key");
  if (!key.open) key.showModal();
}

/** Close on the button and on a click beside; Escape is the browser's. */
export function wireDialogs() {
  for (const box of document.querySelectorAll("dialog")) {
    box.querySelector(".close").addEventListener("click", () => box.close());
    box.addEventListener("click", (event) => { if (event.target === box) box.close(); });
  }
}
