// Plays what cube_figures.player made: fills a step's colours, sizes and numbers into its figures.

const FULL_WIDTH = 520; // pixels; in less the cells are smaller

/** The frame of *step*, or the nearest there is. */
export function frameOf(colouring, step) {
  return colouring.frames.reduce((best, each) =>
    Math.abs(each.step - step) < Math.abs(best.step - step) ? each : best);
}

/** The cube in 3D at *frame*, in so many pixels of *width*. */
export function cubeFigure(player, colouring, frame, width) {
  const [x, y, z] = player.positions;
  const { data, layout } = colouring.cube;
  const shrunk = Math.min(1, width / FULL_WIDTH);
  const usual = player.size * shrunk;
  const size = frame.size ? frame.size.map((each) => each * usual) : usual;
  const cells = {
    ...data[0], x, y, z,
    customdata: frame.custom ?? frame.colour,
    marker: { ...data[0].marker, color: frame.colour, size },
  };
  const made = titled(layout, colouring, frame, "");
  if (shrunk < 1) {
    const aspectratio = Object.fromEntries(
      Object.entries(layout.scene.aspectratio).map(([axis, side]) => [axis, side * Math.sqrt(shrunk)]));
    made.scene = { ...layout.scene, aspectratio };
  }
  return { data: [cells, ...data.slice(1)], layout: made };
}

/** The layers of the cube as flat tiles at *frame*. */
export function layersFigure(player, colouring, frame) {
  const { data, layout } = colouring.layers;
  const rows = 1 + Math.max(...player.places.map(([row]) => row));
  const columns = 1 + Math.max(...player.places.map(([, column]) => column));
  const z = Array.from({ length: rows }, () => Array(columns).fill(null));
  const text = Array.from({ length: rows }, () => Array(columns).fill(""));
  player.places.forEach(([row, column], cell) => {
    z[row][column] = frame.colour[cell];
    text[row][column] = said(player, colouring, frame, cell);
  });
  const figure = titled(layout, colouring, frame, " by layer");
  return { data: [{ ...data[0], z, text }], layout: figure };
}

/** What a table beside the picture says: of each layer the mean, or the commonest choice. */
export function layerRows(colouring, frame) {
  return frame.by_layer.map((value, z) => {
    if (value === null) return [`${z}`, "not reached"];
    const named = colouring.categories[value];
    return [`${z}`, named ?? `${value} ${colouring.unit}`];
  });
}

function titled(layout, colouring, frame, how) {
  const text = `${colouring.title}${how}, step ${frame.step}`;
  return { ...layout, title: { ...layout.title, text } };
}

function said(player, colouring, frame, cell) {
  const place = player.positions.map((axis) => axis[cell]).join(", ");
  const number = (frame.custom ?? frame.colour)[cell];
  const hover = colouring.hover.replace(/%\{customdata(?:\[(\d+)\])?(?::[^}]*)?\}/g, (_, index) =>
    String(index === undefined ? number : number[index]));
  return `cell (${place})<br>${hover}`;
}
