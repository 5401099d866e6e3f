// Keeps the page of a study current: asks for what is new, as often as the answer says.
import { draw, fetched, shown } from "./charts.js";

const page = document.getElementById("study");
// What draws comes last: a second of work before which the page says all that it can in words.
const drawing = new Promise((resume, fail) => {
  if (window.Plotly) return resume();
  const script = document.getElementById("plotly");
  script.addEventListener("load", resume);
  script.addEventListener("error", () => fail(new Error("the charts' script did not come; load the page again")));
});
drawing.catch(() => {}); // said by who waits for it
const part = (id) => document.getElementById(id);
let version = "";

function element(name, text, kind = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function put(id, children) {
  part(id).replaceChildren(...children);
  part(id).hidden = children.length === 0;
}

function table(target, columns, rows) {
  const made = document.createElement("table");
  const head = made.createTHead().insertRow();
  const numeric = columns.map((_, place) => rows.some((row) => typeof row[place] === "number"));
  columns.forEach((column, place) => {
    const cell = element("th", column, numeric[place] ? "number" : "");
    cell.scope = "col";
    head.append(cell);
  });
  const body = made.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    row.forEach((value, place) => line.append(element("td", shown(value), numeric[place] ? "number" : "")));
  }
  target.replaceChildren(...made.childNodes);
}

function state(word) {
  const badge = element("span", word, "state");
  badge.dataset.state = word;
  part("state").replaceChildren(badge);
}

function budget(each) {
  const line = document.createElement("li");
  const name = element("span", `${each.name.replace("_", " ")}: ${shown(each.used)} of ${shown(each.limit)} `);
  const bar = document.createElement("progress");
  bar.max = each.limit;
  bar.value = Math.min(each.used, each.limit);
  bar.setAttribute("aria-label", `${each.name.replace("_", " ")} used`);
  line.append(name, bar);
  return line;
}

function best(content) {
  const winners = content.winners;
  put("best-none", winners.length ? [] : [content.no_winner ? `None: ${content.no_winner}.` : ""]);
  part("best").hidden = winners.length === 0;
  const second = content.second ? [content.second] : [];
  const columns = ["which", content.metric, ...second, "test", "epochs", "seeds", "spread"];
  const rows = winners.map((each) => [
    `trial ${each.trial}, ${each.kind} run`, each.value, ...(content.second ? [each.second_value] : []),
    each.test_value, each.epochs, each.seeds, each.spread,
  ]);
  for (const each of content.baselines) rows.push([each.label, each.value, ...second.map(() => null), null, null, null, null]);
  table(part("best"), columns, rows);
  const one = winners.length === 1;
  part("values").hidden = !one;
  part("export").hidden = !one;
  if (one) table(part("values").querySelector("table"), ["value", "of the best"], Object.entries(winners[0].params));
}

function show(content) {
  state(content.state);
  const verdict = part("verdict");
  verdict.textContent = content.verdict.sentence;
  verdict.dataset.mood = content.verdict.mood;
  put("reason", content.reason ? [`Why it is ${content.state}: ${content.reason}.`] : []);
  put("warnings", content.warnings.map((line) => element("li", line, "warning")));
  put("facts", content.facts.map((each) => {
    const box = document.createElement("div");
    box.append(element("dt", each.name), element("dd", each.value), element("dd", each.note, "note"));
    return box;
  }));
  put("budgets", content.budgets.map(budget));
  part("budget").hidden = content.budgets.length === 0;
  best(content);
  part("written").textContent = `As of ${new Date(content.written).toLocaleString()}.`;
}

/** One chart at a time, so that the first ones are on the screen before the last ones are made. */
async function drawAll(charts) {
  await drawing;
  for (const [name, chart] of Object.entries(charts)) {
    draw(part(name), chart);
    await new Promise((resume) => setTimeout(resume));
  }
}

async function look() {
  let again = 5;
  try {
    const content = await fetched(`${page.dataset.source}?since=${encodeURIComponent(version)}`);
    again = content.again;
    if (content.charts) {
      show(content);
      await drawAll(content.charts);
    }
    version = content.version;
    page.dataset.version = version;
    page.removeAttribute("aria-busy");
    part("trouble").hidden = true;
  } catch (error) {
    part("trouble").textContent = `Not up to date: ${error.message}`;
    part("trouble").hidden = false;
  }
  setTimeout(next, again * 1000);
}

function next() {
  if (!document.hidden) return look();
  document.addEventListener("visibilitychange", next, { once: true });
}

look();
