
// The controls of the page that stands alone.
const player = JSON.parse(document.getElementById("player").textContent);
const known = new Map(player.colourings.map((each) => [each.key, each]));
const [choice, slider] = ["colouring", "step"].map((id) => document.getElementById(id));

for (const group of new Set(player.menu.map((each) => each.group))) {
  const shelf = document.createElement("optgroup");
  shelf.label = group;
  shelf.append(...player.menu.filter((each) => each.group === group)
    .map((each) => new Option(each.title, each.key)));
  choice.append(shelf);
}
slider.max = player.steps;
slider.value = player.steps;

function show() {
  const colouring = known.get(choice.value);
  const frame = frameOf(colouring, Number(slider.value));
  document.getElementById("at").textContent = `${frame.step} of ${player.steps}`;
  document.getElementById("explained").textContent = colouring.explained;
  document.getElementById("caption").textContent = frame.caption;
  const options = { responsive: true, displaylogo: false };
  for (const [id, make] of [["cube", cubeFigure], ["layers", layersFigure]]) {
    const place = document.getElementById(id);
    const { data, layout } = make(player, colouring, frame, place.clientWidth);
    Plotly.react(place, data, layout, options);
  }
  const rows = layerRows(colouring, frame).map((row) => {
    const line = document.createElement("tr");
    line.append(...row.map((text) => {
      const cell = document.createElement("td");
      cell.textContent = text;
      return cell;
    }));
    return line;
  });
  document.querySelector("#by-layer tbody").replaceChildren(...rows);
}

choice.addEventListener("change", show);
slider.addEventListener("input", show);
show();
