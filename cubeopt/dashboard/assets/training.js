// The page of trainings: chosen trials, their numbers and charts, new with every epoch.
import { draw, fetched } from "./charts.js";
import { follow, paced, put } from "./live.js";

const root = document.getElementById("training");
const tail = root.dataset.tail;
const most = Number(root.dataset.most);
const COSTLY = 25_000; // ms between two drawings for each second that one costs: 4 % of a core at most
const [chips, choose, followed, live, picker, find, found, options, now] = [
  ...["chips", "choose", "follow", "live", "picker", "find", "found", "options", "now"],
].map((id) => document.getElementById(id));

const asked = new URLSearchParams(location.search);
let chosen = (asked.get("runs") ?? "").split(",").map((key) => key.trim()).filter(Boolean);
let losses = asked.get("losses") === "weighted" ? "weighted" : "plain";
let tracks = []; // that are shown
let panels = {}; // by id, what is to be drawn
let mark = "";
let cost = 0; // seconds of the server's CPU for the last drawing
let unfollow = () => {};

const said = (text) => {
  if (live.textContent !== text) live.textContent = text;
};

function query() {
  const values = new URLSearchParams();
  if (chosen.length) values.set("runs", chosen.join(","));
  if (losses !== "plain") values.set("losses", losses);
  const text = values.toString().replaceAll("%2C", ",");
  return text && `?${text}`;
}

const refresh = paced(async () => {
  const wanted = query();
  try {
    const content = await fetched(`/data${tail}/charts${wanted}`);
    if (wanted !== query()) return;
    show(content);
    said(live.textContent.startsWith("Connecting") ? "Connecting…" : "live");
  } catch (error) {
    said(`not up to date: ${error.message}`);
    if (!mark) now.replaceChildren(paragraph(error.message, "error"));
  }
}, () => Math.max(1000, COSTLY * cost));

function show(content) {
  ({ mark, cost, tracks, panels } = content);
  put(now, content.html);
  for (const swatch of now.querySelectorAll(".swatch")) {
    paint(swatch, tracks[swatch.dataset.nth] ?? { color: swatch.dataset.color, dash: "solid" });
  }
  showChips();
  undrawn = new Set(Object.keys(panels));
  for (const id of undrawn) {
    const chart = document.getElementById(id);
    if (!watched.has(chart)) sight.observe(chart);
    watched.add(chart);
    if (seen.has(id)) drawPanel(id);
  }
  for (const check of options.querySelectorAll("input")) check.checked = isShown(check.value);
}

// Only what is in sight is drawn, and what comes into sight.
let undrawn = new Set();
const seen = new Set();
const watched = new WeakSet();
const sight = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) seen.add(target.id);
      else seen.delete(target.id);
      if (isIntersecting && undrawn.has(target.id)) drawPanel(target.id);
    }
  },
  { rootMargin: "400px" },
);

function drawPanel(id) {
  undrawn.delete(id);
  const { figure, says, empty } = panels[id];
  draw(document.getElementById(id), { figure, says: figure ? says : "", empty });
}

function showChips() {
  const list = tracks.map((track) => {
    const item = document.createElement("li");
    item.dataset.key = track.key;
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    paint(swatch, track);
    item.append(swatch, track.label);
    if (chosen.length) {
      const remove = document.createElement("button");
      remove.type = "button";
      remove.className = "quiet";
      remove.textContent = "×";
      remove.setAttribute("aria-label", `Remove ${track.label}`);
      remove.addEventListener("click", () => pick(track.key, false));
      item.append(remove);
    }
    return item;
  });
  const before = document.activeElement?.closest?.("#chips li")?.dataset.key;
  chips.replaceChildren(...list);
  if (before) (chips.querySelector(`li[data-key="${before}"] button`) ?? choose).focus();
  followed.hidden = chosen.length === 0;
}

function paint(swatch, track) {
  swatch.style.borderTopColor = track.color;
  swatch.style.borderTopStyle = track.dash === "solid" ? "solid" : "dashed";
}

const isShown = (key) => (chosen.length ? chosen.includes(key) : tracks.some((track) => track.key === key));

function pick(key, on) {
  const before = chosen.length ? chosen : on ? [] : tracks.map((track) => track.key);
  const next = before.filter((each) => each !== key).concat(on ? [key] : []);
  if (next.length > most) {
    found.textContent = `${most} are shown already; more cannot be told apart. Take one away first.`;
    return false;
  }
  turn(next);
  return true;
}

function turn(next) {
  chosen = next;
  history.replaceState(null, "", location.pathname + query());
  start();
}

function start() {
  unfollow();
  refresh();
  const runs = chosen.length ? `?runs=${chosen.join(",")}` : "";
  unfollow = follow(`/events${tail}${runs}`, (other) => other !== mark && refresh(), said);
}

// The picker: a search that shows the first twenty, as boxes to tick.

choose.addEventListener("click", () => {
  picker.hidden = !picker.hidden;
  choose.setAttribute("aria-expanded", String(!picker.hidden));
  if (!picker.hidden) {
    search();
    find.focus();
  }
});

picker.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  picker.hidden = true;
  choose.setAttribute("aria-expanded", "false");
  choose.focus();
});

find.addEventListener("input", () => search());
find.addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  const first = options.querySelector("input");
  if (first && !first.checked) first.click();
});
followed.addEventListener("click", () => {
  turn([]);
  choose.focus();
});

let searched = 0;
async function search() {
  const turnOf = ++searched;
  try {
    const content = await fetched(`/data${tail}/options?find=${encodeURIComponent(find.value.trim())}`);
    if (turnOf === searched) offer(content);
  } catch (error) {
    if (turnOf === searched) found.textContent = error.message;
  }
}

function offer({ metric, count, options: rows }) {
  const all = count.toLocaleString("en");
  const order = `those that are trained now first, then the best by ${metric}`;
  found.textContent = count === 0 ? "no trial has such a number" : count > rows.length ? `the first ${rows.length} of ${all}: ${order}` : `${all}: ${order}`;
  options.replaceChildren(
    ...rows.map((row) => {
      const item = document.createElement("li");
      const label = document.createElement("label");
      const box = document.createElement("input");
      box.type = "checkbox";
      box.value = row.key;
      box.checked = isShown(row.key);
      box.addEventListener("change", () => {
        if (!pick(row.key, box.checked)) box.checked = false;
      });
      const state = document.createElement("span");
      state.className = "state";
      state.dataset.state = state.textContent = row.state;
      const value = row.value === null ? "" : `, ${metric} ${row.value.toPrecision(4)}`;
      const facts = document.createElement("span");
      facts.className = "quiet";
      facts.textContent = `epoch ${row.epoch}/${row.target_epochs}${value}`;
      label.append(box, row.label, state, facts);
      item.append(label);
      return item;
    }),
  );
}

function paragraph(text, kind) {
  const line = document.createElement("p");
  line.className = kind;
  line.textContent = text;
  return line;
}

now.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-losses]");
  if (!button) return;
  losses = button.dataset.losses;
  history.replaceState(null, "", location.pathname + query());
  refresh();
});

start();
