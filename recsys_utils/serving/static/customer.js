// New customer: a form made from the fields that the model knows, its best products, and a predicted rating.

import { api, count, words } from "./api.js";
import { card, cards, el, empty, fill, say } from "./ui.js";
import { combobox, findUsers } from "./search.js";

const root = document.querySelector("#view-customer");
const form = root.querySelector("form");
const results = root.querySelector(".results");
const rating = root.querySelector(".rating");
let product = "";       // the attribute that is a product's name
let made = false;

export function start() {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    fill(results, () => api("new-customer/recommendations", { profile: filled(form), top_k: 6 }), picks);
  });
}

export function open() {
  if (made) return;
  made = true;
  fill(form.querySelector(".form"), () => api("new-customer/fields"), drawn, el("div.lines.ghost", {}, el("p.vh", {}, "Loading …")));
}

function drawn({ available, fields, item_fields: itemFields }) {
  if (!available) return unavailable();
  results.replaceChildren(empty("Nobody yet", "Fill in a profile, or leave it empty, and ask for products."));
  product = itemFields[0].field;
  rating.replaceChildren(rater(itemFields));
  const [first, rest] = [fields.filter((one) => one.asked).sort((a, b) => b.weight - a.weight), fields.filter((one) => !one.asked)];
  const drawnOf = (some) => el("div.fields.grid", {}, some.map((one) => field(one, "customer")));
  return [drawnOf(first),
    rest.length ? el("details", {}, el("summary", {}, `${count(rest.length)} more answers, which change less`), drawnOf(rest)) : null,
    el("div.row", {}, el("button.main", {}, "Recommend"), el("button.quiet", { type: "reset" }, "Clear"))];
}

/** The whole tab, where the data hold no ratings: what to do instead. */
function unavailable() {
  root.replaceChildren(empty("No ratings here", "This shop's data hold no ratings, so nothing can be predicted from a profile.",
    el("p", {}, el("a", { href: "#shopper" }, "Name a few products on the Shopper tab"), " or ",
      el("a", { href: "#queue" }, "open a queue under a new name"), " instead.")));
  say(root);
}

/** A labelled control: a number, a choice, or a text with a list to search. */
function field({ field: name, kind, options, minimum, maximum }, prefix) {
  const id = `${prefix}-${name}`;
  const range = minimum === null ? "unknown" : `${count(Math.floor(minimum))} to ${count(Math.ceil(maximum))}`;
  const typed = kind === "number" ? { type: "number", step: "any", inputmode: "decimal", placeholder: range }
    : { placeholder: "unknown", maxlength: 200 };
  const control = kind === "choice"
    ? el("select", { id, name }, el("option", { value: "" }, "unknown"), options.map((option) => el("option", { value: option }, option)))
    : el("input", { id, name, ...typed });
  const made = el("div.field", {}, el("label", { for: id }, words(name)), control);
  if (kind === "text") combobox(control, async (text) => found(options, text));
  return made;
}

const found = (options, text) => options.filter((option) => option.toLowerCase().includes(text.toLowerCase())).slice(0, 10)
  .map((option) => ({ value: option, label: option, fill: option }));

/** What was filled in; numbers as numbers. */
function filled(within) {
  const inputs = [...within.querySelectorAll("[name]")].filter((input) => input.value.trim() !== "");
  return Object.fromEntries(inputs.map((input) => [input.name, input.type === "number" ? input.valueAsNumber : input.value.trim()]));
}

function picks({ recommendations }) {
  if (!recommendations.length) return empty("Nothing to show", "The catalogue is empty.");
  const text = "The two towers chose these from the answers alone; the stars are the rating they expect.";
  return [el("div.heading", {}, el("h2", {}, "For this profile"), el("p.soft", {}, text)), cards(recommendations.map((one, n) =>
    card(one, n + 1, el("p.reason", {}, one.reason), rated(one.rating))), "Products for this profile")];
}

/** 3.8 of 5 as stars that fill by the fraction. */
function rated(value) {
  const full = el("span.full", { "aria-hidden": "true" }, "★★★★★");
  full.style.width = `${(value / 5) * 100}%`;
  return el("p.rated", { "aria-label": `${value.toFixed(2)} of 5`, role: "img" },
    el("span.stars", {}, el("span", { "aria-hidden": "true" }, "★★★★★"), full), el("b", {}, value.toFixed(2)));
}

function rater(fields) {
  const who = el("input", { id: "rating-customer", placeholder: "nobody: the profile in the form", maxlength: 200 });
  const out = el("div", { "aria-live": "polite" });
  const known = el("div.field", {}, el("label", { for: who.id }, "Known customer"), who);
  combobox(who, findUsers);
  return el("form.panel", { novalidate: true, onsubmit: (event) => { event.preventDefault(); predict(event.target, who.value.trim(), out); } },
    el("h2", {}, "Predict a rating"), el("p.soft", {}, "For a product by name, or for a product that does not exist yet by its attributes."),
    el("div.fields.grid", {}, fields.map((one) => field(one, "rating")), known),
    el("div.row", {}, el("button.main", {}, "Predict")), out);
}

function predict(within, customer, out) {
  const item = filled(within);
  if (!Object.keys(item).length) return out.replaceChildren(el("p.warning", { role: "alert" }, "Name a product, or one of its attributes, first."));
  const asked = customer ? { customer_id: customer, item } : { profile: filled(form), item };
  return fill(out, () => api("new-customer/rating", asked), (answer) => el("div", {}, rated(answer.rating),
    el("p.soft.small", {}, `${answer.text}, predicted for ${customer || "this profile"} and ${item[product] ?? "such a product"}.`)),
  el("p.soft", {}, "…"));
}
