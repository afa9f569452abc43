// The page: what the service says about itself, tabs, deep links (#analyst?user=…) and the API key.

import { about, api, apiKey, day } from "./api.js";
import { closeDialogs, el, failed, wireDialogs } from "./ui.js";
import * as shopper from "./shopper.js";
import * as analyst from "./analyst.js";
import * as customer from "./customer.js";
import * as queue from "./queue.js";
import * as knobs from "./knobs.js";

const views = { shopper, analyst, customer, queue, knobs };
const tabs = [...document.querySelectorAll("[role=tab]")];
const names = Object.keys(views);     // in the order of the tabs; no element has such an id, or the browser would scroll and focus it
const panels = tabs.map((tab) => document.getElementById(tab.getAttribute("aria-controls")));
const last = {};        // each tab's parameters, so that coming back finds it as it was

const address = (name, values = {}) => {
  const kept = Object.entries(values).filter(([, value]) => value !== "" && value !== false);
  return kept.length ? `#${name}?${new URLSearchParams(kept)}` : `#${name}`;
};

/** Show the tab of the address; load it again where its parameters changed or the user asked again. */
function route(again = false) {
  const [name, search = ""] = location.hash.slice(1).split("?");
  const shown = views[name] ? name : "shopper";
  tabs.forEach((tab, n) => {
    const on = names[n] === shown;
    tab.setAttribute("aria-selected", String(on));
    tab.tabIndex = on ? 0 : -1;
    panels[n].hidden = !on;
  });
  if (!again && last[shown] === search) return;
  last[shown] = search;
  closeDialogs();
  views[shown].open(new URLSearchParams(search));
}

function go(name, values) {
  const to = address(name, values);
  if (location.hash === to) route(true);
  else location.hash = to;
}

function wireTabs() {
  tabs.forEach((tab, n) => {
    tab.addEventListener("click", () => { location.hash = names[n] + (last[names[n]] ? `?${last[names[n]]}` : ""); });
    tab.addEventListener("keydown", (event) => {
      const to = { ArrowRight: n + 1, ArrowLeft: n - 1, Home: 0, End: tabs.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      const next = tabs[(to + tabs.length) % tabs.length];
      next.focus();
      next.click();
    });
  });
}

function wireKey() {
  const dialog = document.querySelector("#key");
  const input = dialog.querySelector("input");
  document.querySelector("#keybutton").addEventListener("click", () => dialog.showModal());
  dialog.addEventListener("close", () => {
    if (dialog.returnValue === "save" && input.value.trim()) apiKey.set(input.value.trim());
    if (dialog.returnValue === "forget") apiKey.set("");
    dialog.returnValue = input.value = "";
  });
}

function options(id, choices, first, chosen = "") {
  document.getElementById(id).replaceChildren(...(first ? [el("option", { value: "" }, first)] : []),
    ...choices.map(([value, name]) => el("option", { value, selected: value === chosen }, name)));
}

/** Ask the service who it is; models and categories fill the selects. */
async function connect() {
  const [models, { categories }] = await Promise.all([api("models"), api("items?limit=1")]);
  Object.assign(about, models, { categories });
  document.querySelector("#shop").textContent = about.title;
  document.title = `${about.title} · Retail RecSys Lab`;
  health(`Data until ${day(about.as_of)}`, "healthy");
  const banner = document.querySelector("#banner");
  banner.hidden = !about.synthetic;
  banner.textContent = "Synthetic data: this shop, its products and its shoppers are made up.";
  const named = about.models.map((model) => [model.name, model.title]);
  for (const id of ["shopper-model", "analyst-model"]) options(id, named, null, about.page);
  options("analyst-versus", [["none", "none"], ...named]);
  for (const id of ["shopper-category", "analyst-category"]) options(id, categories.map((name) => [name, name]), "all");
  for (const select of document.querySelectorAll("[name=category]")) select.closest(".field").hidden = !categories.length;
  for (const box of about.stocks ? [] : document.querySelectorAll("[name=sold], [name=in_stock_only]")) {
    box.closest("label").hidden = true;
    box.closest(".checks").append(el("span.soft", {}, "Stock is not part of this shop's data."));
  }
}

function health(text, kind = "") {
  const node = document.querySelector("#health");
  node.textContent = text;
  node.className = `health ${kind}`;
}

/** Start once the service can answer; while it loads, ask again by itself. */
async function begin() {
  document.querySelector("#main > .state")?.remove();
  try {
    await connect();
  } catch (error) {
    health("Not connected");
    document.querySelector("#main").prepend(failed(error, begin));
    if (error.status === 503) setTimeout(begin, 3000);
    return;
  }
  for (const [name, view] of Object.entries(views)) view.start((values) => go(name, values));
  addEventListener("hashchange", () => route());
  route();
}

wireDialogs();
wireTabs();
wireKey();
begin();
