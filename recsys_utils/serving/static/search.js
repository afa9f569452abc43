// A search field with suggestions, for shoppers and for products.

import { api, money, nameOf, query } from "./api.js";
import { el } from "./ui.js";

/** A search field with a list (ARIA combobox): find(text) gives [{value, label, hint}], picked(value) is called on a choice. */
export function combobox(input, find, picked = () => {}) {
  const list = el("ul.options", { role: "listbox", id: `${input.id}-list`, "aria-label": "Suggestions", hidden: true });
  input.after(list);
  input.parentElement.classList.add("combo");
  for (const [name, value] of Object.entries({ role: "combobox", autocomplete: "off", spellcheck: "false", "aria-autocomplete": "list",
    "aria-expanded": "false", "aria-controls": list.id })) input.setAttribute(name, value);
  let active = -1;
  let timer = 0;
  let turn = 0;
  let stale = true;       // the list is not that of the text
  const close = () => {
    list.hidden = true;
    active = -1;
    turn += 1;
    clearTimeout(timer);
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };
  const take = (option) => { input.value = option.dataset.label; close(); picked(option.dataset.value, option.dataset.label); };
  const mark = (to) => {
    const options = [...list.querySelectorAll("[role=option]")];
    if (!options.length) return;
    active = (to + options.length) % options.length;
    options.forEach((option, n) => option.setAttribute("aria-selected", String(n === active)));
    options[active].scrollIntoView({ block: "nearest" });
    input.setAttribute("aria-activedescendant", options[active].id);
  };
  const open = async () => {
    const mine = (turn += 1);
    const found = await find(input.value.trim()).catch(() => []);
    if (mine !== turn || document.activeElement !== input) return;
    list.replaceChildren(...found.map((choice, n) => el("li", { role: "option", id: `${list.id}-${n}`, "aria-selected": "false",
      "data-value": choice.value, "data-label": choice.fill, onpointerdown: (event) => { event.preventDefault(); take(event.currentTarget); } },
    el("span", {}, choice.label), choice.hint ? el("span.soft.small", {}, choice.hint) : null)));
    active = -1;
    stale = false;
    list.hidden = !found.length;
    input.setAttribute("aria-expanded", String(!list.hidden));
  };
  input.addEventListener("input", () => { stale = true; active = -1; clearTimeout(timer); timer = setTimeout(open, 150); });
  input.addEventListener("click", () => { if (list.hidden) open(); });
  input.addEventListener("blur", close);
  input.addEventListener("keydown", async (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (list.hidden || stale) await open();
      mark(event.key === "ArrowDown" ? active + 1 : active - 1);
    } else if (event.key === "Escape" && !list.hidden) {
      event.preventDefault();
      close();
    } else if (event.key === "Enter" && active >= 0) {
      event.preventDefault();
      take(list.querySelectorAll("[role=option]")[active]);
    } else if (event.key === "Enter") close();
  });
}

/** Known shoppers by a part of their id. */
export async function findUsers(text) {
  const { users } = await api(query("users", { q: text, limit: 8 }));
  return ["loyal", "new"].flatMap((kind) => users[kind].slice(0, 8).map((user) => ({ value: user, label: user, fill: user, hint: kind })));
}

export async function findItems(text) {
  const { items } = await api(query("items", { q: text, limit: 10 }));
  return items.map((item) => ({ value: item.item_id, label: nameOf(item), fill: nameOf(item), hint: money(item.item_price) }));
}
