// What pages that change by themselves have in common: to hear of news, and to put them in place.
//
// follow(address, seen, say): calls *seen* with each mark that /events tells, while the page is
// looked at. A hidden page hears nothing and asks for nothing; shown again, it catches up. One that
// has lost the server says so, tries again, ever more rarely, and goes on where it was.
import { fetched } from "./charts.js";

const SOONEST = 1000; // milliseconds until the first new try; each further one waits twice as long
const LATEST = 10_000;

/** Hear of changes at *address*; the function that it returns ends that. */
export function follow(address, seen, say) {
  let source = null;
  let timer = null;
  let wait = SOONEST;
  const open = () => {
    clearTimeout(timer);
    if (source || document.hidden) return;
    source = new EventSource(address);
    source.addEventListener("open", () => {
      wait = SOONEST;
      say("live");
    });
    source.addEventListener("changed", (event) => {
      say("live");
      seen(event.data);
    });
    source.addEventListener("trouble", (event) => say(`not up to date: ${JSON.parse(event.data)}`));
    source.addEventListener("error", lost);
  };
  const lost = () => {
    const refused = source.readyState === EventSource.CLOSED; // with an answer, and what it says
    close();
    say("not up to date: the dashboard does not answer; trying again");
    timer = setTimeout(open, wait);
    wait = Math.min(2 * wait, LATEST);
    if (refused) fetched(address, { method: "HEAD" }).catch(({ message }) => say(`not up to date: ${message}`));
  };
  const close = () => {
    clearTimeout(timer);
    source?.close();
    source = null;
  };
  const turn = () => (document.hidden ? close() : open());
  document.addEventListener("visibilitychange", turn);
  addEventListener("pagehide", close);
  addEventListener("pageshow", open);
  open();
  return () => {
    document.removeEventListener("visibilitychange", turn);
    removeEventListener("pagehide", close);
    removeEventListener("pageshow", open);
    close();
  };
}

/** One task at a time and not more often than every *pause()* ms; asked for while it runs, it runs
 *  again. */
export function paced(task, pause) {
  let running = false;
  let again = false;
  const run = async () => {
    if (running) {
      again = true;
      return;
    }
    running = true;
    again = false;
    const started = performance.now();
    try {
      await task();
    } finally {
      setTimeout(() => {
        running = false;
        if (again) run();
      }, Math.max(0, pause() - (performance.now() - started)));
    }
  };
  return run;
}

/** Make what *place* holds like *html*, by the fewest changes: focus, scroll and what is unfolded
 *  stay as they are. What stands in a .plot belongs to plotly. */
export function put(place, html) {
  const wanted = document.createElement("template");
  wanted.innerHTML = html; // made by the server, which has escaped every value
  children(place, wanted.content);
}

function children(old, fresh) {
  const have = [...old.childNodes];
  const want = [...fresh.childNodes];
  want.forEach((each, place) => {
    const there = have[place];
    if (!there) old.append(each);
    else if (alike(there, each)) node(there, each);
    else there.replaceWith(each);
  });
  have.slice(want.length).forEach((each) => each.remove());
}

function alike(old, fresh) {
  return old.nodeType === fresh.nodeType && old.nodeName === fresh.nodeName && (old.id ?? "") === (fresh.id ?? "");
}

function node(old, fresh) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  if (old.matches(".plot, .says")) return; // filled by charts.js
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const { name } of [...old.attributes]) {
    const own = name === "open" || name === "style" || name === "aria-busy";
    if (!fresh.hasAttribute(name) && !own) old.removeAttribute(name);
  }
  children(old, fresh);
}
