// Knobs: weights and rules tried on one shopper, what a study expects of them, and the file that makes them last.

import { about, api, count, nameOf, points, words } from "./api.js";
import { beside, el, empty, fill, moved, places } from "./ui.js";
import { combobox, findItems, findUsers } from "./search.js";
import { line } from "./dialogs.js";

const root = document.querySelector("#view-knobs");
const form = root.querySelector("form");
const results = root.querySelector(".results");
const { user } = form.elements;
/** Sliders: [knob, label, least, most, step]. */
const WEIGHTS = [["als", "ALS"], ["item_cf", "Item-item"], ["popularity", "Popularity"]];
const LISTS = [["pin", "Comes first"], ["boost", "Moves up"], ["exclude", "Never shown"]];
/** What the answer calls by its place in the file. */
const NAMES = { "merchandising.diversity": "Variety", "merchandising.min_relevance": "Lowest relevance",
  "merchandising.boost_factor": "What “moves up” adds", "merchandising.pin": "Comes first", "merchandising.boost": "Moves up",
  "merchandising.exclude": "Never shown" };
const chosen = { pin: new Map(), boost: new Map(), exclude: new Map() };     // names by id
let inForce = null;
let timer = 0;

export function start(go) {
  combobox(user, findUsers, () => form.requestSubmit());
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (location.hash === `#knobs?${new URLSearchParams({ user: user.value.trim() })}`) return preview();
    return go({ user: user.value.trim() });
  });
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    draw();
    preview();
  });
  form.addEventListener("input", (event) => {
    if (!event.target.name || event.target === user) return;
    told(event.target);
    clearTimeout(timer);
    timer = setTimeout(preview, 250);
  });
}

export async function open(params) {
  user.value = params.get("user") ?? "";
  if (!inForce) {
    await fill(form.querySelector(".dials"), () => api("config"), ({ config }) => { inForce = config.tuning; return []; }, el("div.lines.ghost"));
    if (!inForce) return;
    draw();
  }
  preview();
}

/** Every dial as the service has it now. */
function draw() {
  const { model_weights: weights, repurchase_cycle: cycle, price_sensitivity: price, upsell, user_segments: segments, merchandising: shop } = inForce;
  for (const [name] of LISTS) chosen[name] = new Map(shop[name].map((id) => [id, id]));
  form.querySelector(".dials").replaceChildren(
    fieldset("", "Weights of the models", WEIGHTS.map(([name, label]) => slider(`weight.${name}`, label, weights[name], 0, 1, 0.05))),
    fieldset("", "Buying again", [check("cycle.enabled", "Wait before a product is suggested again", cycle.enabled),
      slider("cycle.exclusion_factor", "Share of its usual cycle to wait", cycle.exclusion_factor, 0, 2, 0.05)]),
    fieldset("", "Prices", [select("price.mode", "Products that are too expensive", price.mode, [["cap", "are left out"], ["penalty", "lose score"], ["off", "stay as they are"]]),
      slider("price.budget_tolerance", "Too expensive from, times the mean price", price.budget_tolerance, 1, 5, 0.1),
      check("segments.enabled", "Limit prices by spending segment", segments.enabled), slider("upsell.factor", "Raise more expensive products", upsell.factor, 0, 1, 0.05)]),
    fieldset("", "The list as a whole", [slider("shop.diversity", "Variety", shop.diversity, 0, 1, 0.05),
      slider("shop.min_relevance", "Lowest relevance", shop.min_relevance, 0, 1, 0.05),
      slider("shop.boost_factor", "What “moves up” adds", shop.boost_factor, 0, 1, 0.05)]),
    fieldset(".all", "Single products", LISTS.map(([name, label]) => picker(name, label))));
}

const fieldset = (kind, title, parts) => el(`fieldset${kind}`, {}, el("legend", {}, title), parts);

function slider(name, label, value, min, max, step) {
  const id = `knob-${name.replace(".", "-")}`;
  return el("div.dial", {}, el("label", { for: id }, label), el("output", { for: id }, count(value)),
    el("input", { id, name, type: "range", min, max, step, value }));
}

const check = (name, label, on) => el("label.dial.tick", {}, el("input", { type: "checkbox", name, checked: on }), label);

function select(name, label, value, choices) {
  const id = `knob-${name.replace(".", "-")}`;
  return el("div.dial", {}, el("label", { for: id }, label), el("select", { id, name },
    choices.map(([one, text]) => el("option", { value: one, selected: one === value }, text))));
}

/** A list of products: search one to add it, press one to take it away. */
function picker(name, label) {
  const input = el("input", { id: `knob-${name}`, placeholder: "Search a product", maxlength: 200 });
  const chips = el("div.row");
  const show = () => chips.replaceChildren(...[...chosen[name]].map(([id, text]) => el("button.chip", { type: "button",
    "aria-label": `Take away ${text}`, onclick: () => { chosen[name].delete(id); show(); input.focus(); preview(); } }, text, " ✕")));
  const box = el("div.dial", {}, el("label", { for: input.id }, label), el("div.field", {}, input), chips);
  combobox(input, findItems, (id, text) => { chosen[name].set(id, text); input.value = ""; show(); preview(); });
  show();
  return box;
}

/** Say a slider's number beside it. */
function told(input) {
  const output = input.parentElement.querySelector("output");
  if (output) output.textContent = count(input.value);
}

/** What the dials say, as data/tuning.toml has it. */
function tuning() {
  const of = (name) => form.elements[name];
  const number = (name) => Number(of(name).value);
  const weights = Object.fromEntries(WEIGHTS.map(([name]) => [name, number(`weight.${name}`)]));
  const all = Object.values(weights).reduce((sum, one) => sum + one, 0) || 1;
  return {
    model_weights: Object.fromEntries(Object.entries(weights).map(([name, value]) => [name, Math.round(1e6 * value / all) / 1e6])),
    repurchase_cycle: { enabled: of("cycle.enabled").checked, exclusion_factor: number("cycle.exclusion_factor") },
    price_sensitivity: { mode: of("price.mode").value, budget_tolerance: number("price.budget_tolerance") },
    user_segments: { enabled: of("segments.enabled").checked },
    upsell: { factor: number("upsell.factor") },
    merchandising: { ...Object.fromEntries(LISTS.map(([name]) => [name, [...chosen[name].keys()]])), diversity: number("shop.diversity"),
      min_relevance: number("shop.min_relevance"), boost_factor: number("shop.boost_factor") },
  };
}

function preview() {
  if (!inForce) return null;
  if (!user.value.trim()) return results.replaceChildren(empty("No shopper chosen", "Search a shopper ID above to see what the knobs do to a list."));
  return fill(results, () => api("preview", { user_id: user.value.trim(), n: 5, in_stock_only: about.stocks, tuning: tuning() }), shown, el("div.panel.ghost"));
}

function shown({ before, after, changes, study, toml }) {
  const [old, now] = [places(before.recommendations), places(after.recommendations)];
  return [el("section.panel.cost", {}, el("h2", {}, "What this is expected to change"), cost(changes, study)),
    beside([column("Hybrid, current settings", before, now), column("Hybrid, with these knobs", after, old)]),
    toml ? el("section.panel", {}, el("h2", {}, "To keep these settings"),
      el("p.soft", {}, "Write this into a file, and start the service with ", el("code", {}, "TUNING_PATH=that-file.toml"), ". It holds what differs from the defaults."),
      el("pre.toml", { tabindex: 0, "aria-label": "The file" }, toml), copy(toml)) : null];
}

function column(title, answer, other) {
  const found = answer.recommendations;
  return el("section.column", {}, el("h2", {}, title), found.length ? el("ol.lines", { "aria-label": title }, found.map((item, n) =>
    line(item, n + 1, el("div.why", {}, el("p.reason", {}, item.recommendation_reason), el("p", {}, moved(item, n + 1, other))))))
    : empty("No product is left", "These knobs leave nothing to show."));
}

/** What the study recorded of each rule alone; together they may do more or less. */
function cost(changes, study) {
  if (!changes.length) return el("p.soft", {}, "Nothing differs from the current settings. Move a knob.");
  const known = changes.filter((one) => one.precision !== null);
  const sum = (name) => known.reduce((all, one) => all + one[name], 0);
  const total = known.length ? [el("div.totals", {}, figure("Precision@5", sum("precision")),
    known.every((one) => one.revenue_share !== null) ? figure("Share of spending predicted", sum("revenue_share")) : null)] : [];
  const rows = changes.map((one) => el("tr", {}, el("th.left", { scope: "row" }, NAMES[one.knob] ?? words(one.knob)), el("td", {}, said(one.before)), el("td", {}, said(one.after)),
    el("td", {}, points(one.precision)), el("td", {}, points(one.revenue_share))));
  const heads = ["Knob", "Current", "Tried", "Precision@5", "Spending"];
  return [...total, el("div.swipe", { tabindex: 0, role: "region", "aria-label": "Each knob alone" }, el("table", {},
    el("caption", {}, "Each knob alone, in percentage points; “–”: not measured by the study"),
    el("thead", {}, el("tr", {}, heads.map((head, n) => el(n ? "th" : "th.left", { scope: "col" }, head)))), el("tbody", {}, rows))),
  el("p.soft.small", {}, study ? `${study} Of shoppers who came back in the validation weeks. Several knobs together may change more or less than their sum.`
    : "No study was recorded for this shop: run the notebooks, then train the service again.", about.synthetic ? " Synthetic data." : "")];
}

const figure = (name, value) => el("div", {}, el("p.soft.small", {}, name), el(`p.number${value < 0 ? ".less" : value > 0 ? ".more" : ""}`, {}, points(value)));

function said(value) {
  if (Array.isArray(value)) return value.length ? `${count(value.length)} products` : "none";
  return typeof value === "number" ? count(value) : String(value);
}

function copy(text) {
  const button = el("button.quiet", { type: "button" }, "Copy");
  button.addEventListener("click", () => navigator.clipboard?.writeText(text).then(() => { button.textContent = "Copied"; }));
  return button;
}
