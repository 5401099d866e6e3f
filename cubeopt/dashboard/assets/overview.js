// Keeps the list of studies up to date, and says times as how long ago they are.
const now = document.getElementById("now");
const trouble = document.getElementById("trouble");
const PAUSE = 3000; // milliseconds between two looks

function ago(moment) {
  const seconds = Math.max(0, (Date.now() - Date.parse(moment)) / 1000);
  for (const [unit, size] of [["day", 86400], ["hour", 3600], ["minute", 60]]) {
    const count = Math.floor(seconds / size);
    if (count >= 1) return `${count} ${unit}${count === 1 ? "" : "s"} ago`;
  }
  return "just now";
}

function dress() {
  for (const each of now.querySelectorAll("time")) {
    each.title = new Date(each.dateTime).toLocaleString();
    each.textContent = ago(each.dateTime);
  }
}

let shown = "";

async function look() {
  if (document.hidden) return;
  const answer = await fetch("/overview", { redirect: "error" }).catch(() => null);
  const text = answer?.ok ? await answer.text().catch(() => null) : null;
  if (text !== null) return show(text);
  if (answer?.status === 401) return location.assign("/login?next=/"); // started anew, it knows nobody
  const said = answer && !answer.ok ? `answered ${answer.status}` : "does not answer";
  trouble.textContent = `Not up to date: the dashboard ${said}.`;
  trouble.hidden = false;
}

function show(text) {
  trouble.hidden = true;
  if (text === shown) return dress();
  shown = text;
  const focused = document.activeElement?.getAttribute("href");
  now.innerHTML = text; // made by the server, which escapes whatever came from people
  dress();
  if (focused) now.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
}

dress();
(async () => {
  for (;;) {
    await new Promise((done) => setTimeout(done, PAUSE));
    await look();
  }
})();
document.addEventListener("visibilitychange", look);
