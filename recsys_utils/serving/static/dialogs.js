// Dialogs that several tabs open: similar items, and why an item stands where it does.

import { about, api, at, modelName, money, nameOf, percent, query, words } from "./api.js";
import { el, empty, kind, meter, show, stock, tile } from "./ui.js";

/** The five items most like one; where products are offered, none that is sold out. */
export function similar(item, offered = false) {
  const asked = query(`items/${at(item.item_id)}/similar`, { n: 5, in_stock_only: offered && about.stocks });
  return show(`Similar to ${nameOf(item)}`, () => api(asked), (answer) => (answer.similar_items.length
    ? el("ol.lines", { "aria-label": "Similar items" }, answer.similar_items.map((near, place) => line(near, place + 1, bars(near, answer.similar_items, "Bought both"))))
    : empty("Nothing similar", "Too few shoppers bought it together with anything else.")));
}

/** How a score came about: the models' shares, the rules, and what of the history is like the item. */
export function explain({ user, name: model, timestamp }, item) {
  const asked = query(`recommendations/${at(user)}/explain`, { item_id: item.item_id, model, timestamp });
  return show(`Why ${nameOf(item)}?`, () => api(asked), (answer) => [
    el("p.big", {}, answer.recommendation_reason),
    el("p.soft", {}, `${modelName(answer.model)} puts it at ${answer.rank === null ? "no place: it is not recommended" : `place ${answer.rank}`}.`),
    answer.relevance_score === null ? null : meter("Relevance", answer.relevance_score),
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

/** Relevance and confidence, each where it tells the items of a list apart. */
export const bars = (item, all, sure = "Confidence") => el("div.bars", {},
  telling(all, "relevance_score") ? meter("Relevance", item.relevance_score) : null,
  telling(all, "confidence_score") ? meter(sure, item.confidence_score) : null);

/** Known values of a number down a list, as exactly as they are shown. */
const known = (all, name) => all.map((one) => one[name]).filter((value) => value !== null).map((value) => value.toFixed(2));

/** Whether a number tells the items of a list apart: no value stands in four of five rows. */
function telling(all, name) {
  const values = known(all, name);
  const often = Math.max(...values.map((one) => values.filter((other) => other === one).length));
  return values.length > 0 && often < 0.8 * values.length;
}

/** The confidence of a list whose items it does not tell apart, in words; "" where it does or is not known. */
export function sharedConfidence(all) {
  const shares = known(all, "confidence_score").map(Number);
  if (!shares.length || telling(all, "confidence_score")) return "";
  const ends = [...new Set([Math.min(...shares), Math.max(...shares)])].map(percent);
  return `about ${ends.join(" to ")} of suggestions like these are bought`;
}
