// Analyst: a shopper's profile, one model or two beside each other, popular items, and what the service is set to.

import { about, api, at, chain, count, day, modelName, money, nameOf, percent, plural, recommended, words } from "./api.js";
import { beside, choose, el, empty, failed, fill, meant, meter, moved, places, source, stock, titled } from "./ui.js";
import { combobox, findUsers } from "./search.js";
import { bars, explain, line, sharedConfidence, similar } from "./dialogs.js";

const root = document.querySelector("#view-analyst");
const form = root.querySelector("form");
const SELECTS = { model: () => about.page, versus: () => (about.page === "hybrid" ? "popularity" : "hybrid"), category: () => "" };      // and what they hold by default
const FILTERS = ["price_min", "price_max", "category", "timestamp"];
const FIELDS = ["user", "model", "versus", "n", ...FILTERS];
const CHECKS = ["exclude_purchased", "in_stock_only"];
const place = (name) => root.querySelector(`.${name}`);

export function start(go) {
  combobox(form.elements.user, findUsers, () => form.requestSubmit());
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    go(values());
  });
}

function values() {
  const taken = Object.fromEntries(FIELDS.map((name) => [name, form.elements[name].value.trim()]));
  for (const name of CHECKS) taken[name] = form.elements[name].checked;
  return taken;
}

export function open(params) {
  for (const name of FIELDS) {
    if (SELECTS[name]) choose(form.elements[name], params.get(name), SELECTS[name]());
    else form.elements[name].value = params.get(name) ?? (name === "n" ? "5" : "");
  }
  for (const name of CHECKS) form.elements[name].checked = params.get(name) === "true";
  if ([...FILTERS, ...CHECKS].some((name) => params.has(name))) form.querySelector("details").open = true;
  const asked = values();
  if (!place("popular").hasChildNodes()) fill(place("popular"), () => api("items/popular?n=10"), popular);
  if (!place("service").hasChildNodes()) place("service").append(service());
  if (!asked.user) {
    place("profile").replaceChildren();
    return place("results").replaceChildren(empty("No shopper chosen",
      "Search a shopper ID above to see a profile and what each model would recommend."));
  }
  fill(place("profile"), () => api(`users/${at(asked.user)}/profile`), profile, el("div.panel.ghost", {}));
  return fill(place("results"), () => lists(asked), (answers) =>
    beside(answers.map((answer) => column(answer, answers))));
}

/** Each model's answer, or its error: one that fails does not hide the other. */
function lists({ model, versus, ...asked }) {
  return Promise.all([...new Set([model, versus])].filter((name) => name && name !== "none").map(async (name) =>
    ({ name, user: asked.user, timestamp: asked.timestamp, ...await recommended({ ...asked, model: name }).catch((error) => ({ error })) })));
}

function column(answer, all) {
  const [other] = all.filter((one) => one !== answer);
  const there = other?.recommendations ? places(other.recommendations) : null;
  const head = el("h2", {}, modelName(answer.name));
  if (answer.error) return el("section.column", {}, head, failed(answer.error));
  const found = answer.recommendations;
  if (!found.length) return el("section.column", {}, head, empty("No item is left", "No item fits these filters. Widen them."));
  const both = found.filter((item) => there?.has(item.item_id)).length;
  const facts = [there ? `${both} of ${found.length} in both` : null, sharedConfidence(found) || null, answer.cached ? "from the cache" : null,
    `${answer.processing_time_ms.toFixed(1)} ms`].filter(Boolean).join(" · ");
  return el("section.column", {}, head, el("p.soft.small", {}, facts), chain(answer) ? el("p.small.chain", {}, chain(answer)) : null,
    el("ol.lines", { "aria-label": `Items of ${modelName(answer.name)}` }, found.map((item, n) =>
      line(item, n + 1, el("div.why", {}, el("p.reason", {}, item.recommendation_reason),
        el("p", {}, item.model_source === answer.name ? null : source(item.model_source), moved(item, n + 1, there))),
      bars(item, found), buttons(item, answer)))));
}

const buttons = (item, answer) => el("div.row", {},
  el("button.quiet", { type: "button", "aria-label": `Items similar to ${nameOf(item)}`, onclick: () => similar(item) }, "Similar"),
  el("button.quiet", { type: "button", "aria-label": `Why ${nameOf(item)}`, onclick: () => explain(answer, item) }, "Why"));

function profile({ user_id: user, user_info: info, profile: known, is_known_user: isKnown, near, later_purchases: later }) {
  const facts = { Type: info.user_type, Spending: words(info.spending_segment), Purchases: count(info.total_purchases),
    "Different items": count(info.unique_items), "Mean price": info.avg_item_price === null ? "–" : money(info.avg_item_price),
    "Last purchase": day(info.last_purchase_date) };
  const until = `Counted in the receipts until ${day(about.as_of)}${later ? ` and ${plural(later, "purchase")} that came later` : ""}.`;
  const told = Object.keys(known?.attributes ?? {}).length > 0;
  return el("section.panel", { "aria-label": "Profile" }, el("h2", {}, user, " ", isKnown ? null : el("span.badge.unknown", {}, "unknown shopper")),
    isKnown ? [pairs(facts, "dl.facts"), el("p.soft.small", {}, until)] : [el("p.soft", {}, "No purchase of this shopper is known."),
      meant(near, (id) => { form.elements.user.value = id; form.requestSubmit(); })],
    known ? el("details", {}, el("summary", {}, "Attributes and what was bought"),
      told ? [el("h3.apart", {}, "From the shop's file of shoppers"), pairs(known.attributes, "dl.facts")] : null,
      known.history.length ? history(known.history, info.unique_items) : null) : null);
}

const pairs = (facts, spec) => el(spec, {}, Object.entries(facts).map(([name, value]) =>
  el("div", {}, el("dt", {}, words(name)), el("dd", {}, String(value ?? "unknown")))));

const history = (bought, all) => el("div.scroll.history", { tabindex: 0, role: "region", "aria-label": "Bought last" }, el("table", {},
  el("caption", {}, `Bought last: ${count(bought.length)} of ${count(all)} products`),
  el("thead", {}, el("tr", {}, el("th.left", { scope: "col" }, "Product"), el("th", { scope: "col" }, "Times"), el("th", { scope: "col" }, "Last"))),
  el("tbody", {}, bought.map((item) => el("tr", {}, el("th.left", { scope: "row" }, nameOf(item)),
    el("td", {}, count(item.times)), el("td", {}, day(item.last_purchase_date)))))));

function popular({ items }) {
  const heads = ["Rank", "Product", "Price", "Popularity", "Confidence", "Purchases", "Shoppers", "Similar"];
  const rows = items.map((item, n) => el("tr", {}, el("td.soft", {}, String(n + 1)),
    el("th.left", { scope: "row" }, titled(item), " ", stock(item)),
    el("td", {}, money(item.item_price)), el("td", {}, meter("Popularity", item.popularity_score)),
    el("td", {}, item.confidence_score === null ? "–" : percent(item.confidence_score)), el("td", {}, count(item.purchase_count)),
    el("td", {}, count(item.unique_buyers)), el("td", {}, el("button.quiet.icon", { type: "button", "aria-label": `Items similar to ${nameOf(item)}`,
      title: "Similar items", onclick: () => similar(item) }, lens()))));
  return [el("div.heading", {}, el("h2", {}, "Popular items")), el("div.swipe", { tabindex: 0, role: "region", "aria-label": "Popular items" },
    el("table.best", {}, el("caption", {}, "What most shoppers bought, most popular first"),
      el("thead", {}, el("tr", {}, heads.map((head) => el(head === "Product" ? "th.left" : "th", { scope: "col" }, head)))), el("tbody", {}, rows)))];
}

/** A magnifying glass. */
function lens() {
  const svg = (tag, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };
  const glass = svg("svg", { viewBox: "0 0 20 20", width: 18, height: 18, "aria-hidden": "true",
    fill: "none", stroke: "currentColor", "stroke-width": 2 });
  glass.append(svg("path", { d: "M13 13l5 5M15 8.5a6.5 6.5 0 1 1-13 0a6.5 6.5 0 0 1 13 0z", "stroke-linecap": "round" }));
  return glass;
}

/** What the service runs with, read when it is opened. */
function service() {
  const body = el("div.knobs", {});
  const load = () => Promise.all([api("stats"), api("config")]);
  const render = ([{ config: _, ...stats }, { config }]) => [settings(stats, "Since the start"), settings(config, "Configuration")];
  const opened = (event) => event.target.open && fill(body, load, render, el("div.lines.ghost", {}));
  return el("details", { ontoggle: opened }, el("summary", {}, "Service: knobs, cache and speed"), body);
}

function settings(tree, caption) {
  const shown = (value) => (typeof value === "number" ? count(value) : String(value ?? "–"));
  return el("div.scroll", {}, el("table", {}, el("caption", {}, caption), el("tbody", {}, leaves(tree).map(([name, value]) =>
    el("tr", {}, el("th.left", { scope: "row" }, el("code", {}, name)), el("td", {}, shown(value)))))));
}

/** {a: {b: 1}} → [["a.b", 1]]. */
function leaves(tree, before = "") {
  return Object.entries(tree).flatMap(([name, value]) => {
    if (Array.isArray(value)) return [[before + name, value.join(", ")]];
    return value !== null && typeof value === "object" ? leaves(value, `${before}${name}.`) : [[before + name, value]];
  });
}
