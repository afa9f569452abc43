// Dialogs that several tabs open: similar items, and why an item stands where it does.

import { api, at, modelName, money, nameOf, query, words } from "./api.js";
import { el, empty, kind, meter, show, stock, tile } from "./ui.js";

/** The five items most like one. */
export function similar(item) {
  return show(`Similar to ${nameOf(item)}`, () => api(`items/${at(item.item_id)}/similar?n=5`), (answer) => (answer.similar_items.length
    ? el("ol.lines", { "aria-label": "Similar items" }, answer.similar_items.map((near, place) => line(near, place + 1, bars(near))))
    : empty("Nothing similar", "Too few shoppers bought it together with anything else.")));
}

/** How a score came about: the models' shares, the rules, and what of the history is like the item. */
export function explain({ user, name: model, timestamp }, item) {
  const asked = query(`recommendations/${at(user)}/explain`, { item_id: item.item_id, model, timestamp });
  return show(`Why ${nameOf(item)}?`, () => api(asked), (answer) => [
    el("p.big", {}, answer.recommendation_reason),
    el("p.soft", {}, `${modelName(answer.model)} puts it at ${answer.rank === null ? "no place: it is not recommended" : `place ${answer.rank}`}.`),
    meter("Relevance", answer.relevance_score),
    answer.parts.length ? table("How the models add up", ["Model", "Weight", "Score", "Adds"], answer.parts.map((part) =>
      [modelName(part.model), part.weight, part.score, part.contribution])) : null,
    answer.rules.length ? table("What the shop's rules say", ["Rule", "Effect"], answer.rules.map((rule) =>
      [words(rule.rule), rule.effect])) : null,
    answer.neighbours.length ? table("Like these in the purchase history", ["Product", "Similarity"], answer.neighbours.map((near) =>
      [nameOf(near), near.similarity])) : null]);
}

function table(caption, heads, rows) {
  const cell = (value) => (typeof value === "number" ? value.toFixed(2) : value);
  const kind = (tag, n) => (n === 0 || typeof rows[0][n] !== "number" ? `${tag}.left` : tag);
  return el("div.scroll", { tabindex: 0, role: "region", "aria-label": caption }, el("table", {}, el("caption", {}, caption),
    el("thead", {}, el("tr", {}, heads.map((head, n) => el(kind("th", n), { scope: "col" }, head)))),
    el("tbody", {}, rows.map(([first, ...rest]) => el("tr", {}, el("th.left", { scope: "row" }, first),
      rest.map((value, n) => el(kind("td", n + 1), {}, cell(value))))))));
}

/** One product as a row: rank, picture, name; then what is given. */
export function line(item, rank, ...more) {
  return el("li.line", {}, el("span.rank", {}, el("span.vh", {}, "Rank "), String(rank)), tile(item), el("div.what", {}, el("h3", {}, nameOf(item)),
    el("p.soft.small", {}, el("b", {}, money(item.item_price)), " ", stock(item), " ", kind(item))), ...more);
}

export const bars = (item) => el("div.bars", {}, meter("Relevance", item.relevance_score), meter("Confidence", item.confidence_score));
