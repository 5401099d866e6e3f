// The page of workers: what changes is made by the server, and put in place when it says so.
import { fetched } from "./charts.js";
import { follow, paced, put } from "./live.js";

const live = document.getElementById("live");
let shown = "";

const refresh = paced(async () => {
  try {
    const { mark, html } = await fetched("/data/workers/now");
    put(document.getElementById("now"), html);
    shown = mark;
    live.textContent = "live";
  } catch (error) {
    live.textContent = `not up to date: ${error.message}`;
  }
}, () => 1000);

follow(
  "/events/workers",
  (mark) => mark !== shown && refresh(),
  (said) => (live.textContent = said),
);
