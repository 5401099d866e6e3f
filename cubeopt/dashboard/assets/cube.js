// The page of a cube: asks for it until it has been looked at, then plays it by step and epoch.

import { draw, fetched, shown } from "./charts.js";
import { cubeFigure, frameOf, layerRows, layersFigure } from "./cube_view.js";

const AGAIN = 500; // milliseconds between questions while the cube is looked at
const LOOK = 10_000; // milliseconds after which a run may have left another checkpoint
const BEAT = 900; // milliseconds of a step that is played
const find = (id) => document.getElementById(id);
const controls = find("controls");
const solid = Boolean(document.createElement("canvas").getContext("webgl"));
const kept = new Map(); // address: an answer that is ready
const wish = { ...Object.fromEntries(new URLSearchParams(location.search)) };
let now = null; // the answer that is shown
let asking = 0;
let beat = null;

function address() {
  const query = new URLSearchParams({ run: find("run").value, epoch: find("epoch").value });
  query.set("colour", wish.colour ?? "expert");
  return `/data/studies/${encodeURIComponent(controls.dataset.study)}/cube?${query}`;
}

async function ask() {
  const turn = ++asking;
  const from = address();
  let answer = kept.get(from);
  while (!answer) {
    let content;
    try {
      content = await fetched(from);
    } catch (error) {
      if (turn === asking) tell(error.message, "error");
      return;
    }
    if (turn !== asking) return;
    if (content.state === "ready") {
      answer = content;
      kept.set(from, content);
    } else if (content.state === "working") {
      const done = Math.round(100 * content.share);
      tell(`Looking at the cube of epoch ${content.epoch}: ${content.says}, ${done} %`, "hint");
      await new Promise((resume) => setTimeout(resume, AGAIN));
      if (turn !== asking) return;
    } else {
      find("found").hidden = true;
      tell(content.says, "error");
      return;
    }
  }
  show(answer);
}

function tell(text, kind = "") {
  find("status").className = kind;
  find("status").textContent = text;
}

function show(answer) {
  now = answer;
  const { player } = answer;
  tell(`The cube after epoch ${answer.epoch}: ${answer.facts.cube}; ${answer.facts.rows}.`, "quiet");
  find("found").hidden = false;
  menu(player.menu, player.colourings[0].key);
  const slider = find("step");
  slider.max = player.steps;
  slider.value = Math.min(Number(wish.step ?? player.steps), player.steps);
  find("findings").replaceChildren(...answer.findings.map(finding));
  table(find("steps"), answer.steps);
  find("facts").replaceChildren(...Object.entries(answer.facts).map(([name, value]) => {
    const box = document.createElement("div");
    box.append(element("dt", name), element("dd", shown(value)));
    return box;
  }));
  paint();
}

function menu(entries, chosen) {
  const select = find("colour");
  const groups = [...new Set(entries.map((each) => each.group))].map((group) => {
    const shelf = document.createElement("optgroup");
    shelf.label = group;
    shelf.append(...entries.filter((each) => each.group === group)
      .map((each) => new Option(each.title, each.key)));
    return shelf;
  });
  select.replaceChildren(...groups);
  select.value = chosen;
}

function paint() {
  const { player } = now;
  const [colouring] = player.colourings;
  const frame = frameOf(colouring, Number(find("step").value));
  find("step-at").textContent = `${frame.step} of ${player.steps}`;
  find("step").setAttribute("aria-valuetext", `step ${frame.step} of ${player.steps}`);
  find("explained").textContent = colouring.explained;
  const content = { says: frame.caption, figure: null,
    columns: ["layer z", colouring.categories.length ? "commonest" : "mean"],
    rows: layerRows(colouring, frame) };
  const width = find("cube").querySelector(".plot").clientWidth;
  draw(find("cube"), solid
    ? { ...content, figure: cubeFigure(player, colouring, frame, width) }
    : { ...content, empty: "This browser draws nothing in 3D (WebGL is off). The layers show the same cells." });
  draw(find("layers"), { figure: layersFigure(player, colouring, frame) });
}

function finding(each) {
  const line = document.createElement("li");
  line.className = each.trouble ? "warning" : "note";
  line.append(element("strong", `${each.kind} ${each.subject}`.trim()), `: ${each.sentence}.`);
  return line;
}

function table(place, rows) {
  const made = document.createElement("table");
  const head = made.createTHead().insertRow();
  for (const name of Object.keys(rows[0])) {
    const cell = element("th", name.replaceAll("_", " "));
    cell.scope = "col";
    cell.className = "number";
    head.append(cell);
  }
  const body = made.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    for (const value of Object.values(row)) {
      const cell = line.insertCell();
      cell.className = "number";
      cell.textContent = shown(value);
    }
  }
  place.replaceChildren(made);
}

function element(tag, text) {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}

function remember(values) {
  Object.assign(wish, values);
  const query = new URLSearchParams({ ...wish, run: find("run").value, epoch: find("epoch").value });
  history.replaceState(null, "", `?${query}`);
}

function rest() {
  clearInterval(beat);
  beat = null;
  find("play").setAttribute("aria-pressed", "false");
  find("play").textContent = "Play the steps";
}

function play() {
  if (beat) return rest();
  const slider = find("step");
  const { frames } = now.player.colourings[0];
  let place = 0;
  const next = () => {
    if (place === frames.length) return rest();
    slider.value = frames[place].step;
    place += 1;
    paint();
  };
  find("play").setAttribute("aria-pressed", "true");
  find("play").textContent = "Stop";
  beat = setInterval(next, BEAT);
  next();
}

/** Move the eye around the z axis by *turned* degrees, and up by *raised*. */
function move(turned, raised) {
  const plot = find("cube").querySelector(".js-plotly-plot");
  if (!plot) return;
  const camera = structuredClone(plot._fullLayout.scene.camera);
  const { x, y, z } = camera.eye;
  const angle = (turned * Math.PI) / 180;
  camera.eye = {
    x: x * Math.cos(angle) - y * Math.sin(angle),
    y: x * Math.sin(angle) + y * Math.cos(angle),
    z: Math.max(-2.5, Math.min(2.5, z + raised)),
  };
  Plotly.relayout(plot, { "scene.camera": camera });
}

function start() {
  find("run").addEventListener("change", () => {
    location.search = new URLSearchParams({ run: find("run").value });
  });
  if (!find("epoch")) return;
  const ranged = find("epochs");
  let epochs = [...find("epoch").options].map((each) => each.value);
  const toEpoch = (epoch) => {
    place(epoch);
    remember({});
    ask();
  };
  const place = (epoch) => {
    find("epoch").value = epoch;
    ranged.value = epochs.indexOf(epoch);
    ranged.setAttribute("aria-valuetext", `epoch ${epoch}`);
    find("epoch-at").textContent = epoch;
  };
  const look = async () => {
    if (document.hidden) return;
    const query = new URLSearchParams({ run: find("run").value, list: "" });
    const study = encodeURIComponent(controls.dataset.study);
    const answer = await fetched(`/data/studies/${study}/cube?${query}`).catch(() => null);
    const found = answer?.epochs?.map(String) ?? [];
    if (found.length === 0 || found.join() === epochs.join()) return;
    const chosen = find("epoch").value;
    epochs = found;
    find("epoch").replaceChildren(...found.map((each) => new Option(each, each)));
    ranged.max = found.length - 1;
    find("epochs-label").hidden = found.length < 2;
    if (found.includes(chosen)) place(chosen);
    else toEpoch(found.at(-1)); // a run that is not full keeps its newest only
  };
  setInterval(look, LOOK);
  document.addEventListener("visibilitychange", look);
  find("epoch").addEventListener("change", () => toEpoch(find("epoch").value));
  ranged.addEventListener("change", () => toEpoch(epochs[Number(ranged.value)]));
  ranged.addEventListener("input", () => {
    find("epoch-at").textContent = epochs[Number(ranged.value)];
  });
  find("colour").addEventListener("change", () => {
    rest();
    remember({ colour: find("colour").value });
    ask();
  });
  find("step").addEventListener("input", () => {
    rest();
    remember({ step: find("step").value });
    paint();
  });
  find("play").addEventListener("click", play);
  for (const button of document.querySelectorAll("[data-turn], [data-raise]")) {
    button.addEventListener("click", () =>
      move(Number(button.dataset.turn ?? 0), Number(button.dataset.raise ?? 0)));
  }
  controls.addEventListener("submit", (event) => event.preventDefault());
  ask();
}

if (controls) start();
