// A patch on a picture. Pointer, finger and arrow keys move it; Python gets the new place when the reader lets go.
const SVG = "http://www.w3.org/2000/svg";
const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
const CSS = "display: block; width: 100%; touch-action: none; user-select: none";

function part(parent, name) {
  return parent.appendChild(document.createElementNS(SVG, name));
}

function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
}

/** Draws a box (y0, x0, y1, x1). Its lines have the same width on every screen. */
function frame(rect, [y0, x0, y1, x1], colour, width, dashes, filled = 0) {
  set(rect, { x: x0, y: y0, width: x1 - x0, height: y1 - y0, fill: colour, "fill-opacity": filled, stroke: colour });
  set(rect, { "stroke-width": width, "stroke-dasharray": dashes, "vector-effect": "non-scaling-stroke" });
}

function render({ model, el }) {
  const svg = part(el, "svg");
  // Without the second attribute the notebook uses the arrow keys itself.
  set(svg, { role: "application", "data-lm-suppress-shortcuts": "true", tabindex: 0, style: CSS });
  const image = part(svg, "image");
  const zones = model.get("boxes").map(() => part(svg, "rect"));
  const patch = part(svg, "rect");
  const note = el.appendChild(document.createElement("div"));
  note.setAttribute("role", "status");
  note.style.cssText = "color: var(--jp-ui-font-color1, inherit); font-size: 13px; line-height: 1.4; min-height: 4.2em";
  let held = null; // the place of a patch during a move: its share of the zone's box, down and across
  let grip = [0, 0]; // from the pointer to the patch's centre, px

  /** The patch around a centre, cut to its zone's box in the same way as in Python. */
  function cut(place) {
    const box = model.get("boxes")[model.get("zone")], side = model.get("block");
    const last = (k) => box[k + 2] - 1;
    const centre = place.map((share, k) => Math.min(last(k), Math.floor(box[k] + share * (box[k + 2] - box[k]))));
    const low = centre.map((v) => v - Math.floor(side / 2));
    return [...low.map((v, k) => Math.max(v, box[k])), ...low.map((v, k) => Math.min(v + side, box[k + 2]))];
  }

  function draw() {
    const [height, width] = model.get("size"), colours = model.get("colours"), chosen = model.get("zone");
    set(svg, { viewBox: `0 0 ${width} ${height}`, "aria-label": model.get("label") });
    set(image, { href: model.get("picture"), width, height });
    svg.style.cursor = model.get("moves") ? "move" : "default";
    model.get("boxes").forEach((box, k) => {
      if (k === chosen) frame(zones[k], box, colours.zone, 1.5, "", 0.2);
      else frame(zones[k], box, colours.zone, 1, "2 3");
    });
    const dashed = held || model.get("accepted");
    frame(patch, held ? cut(held) : model.get("patch"), colours.patch, 2.5, dashed ? "6 4" : "2 3");
    note.textContent = model.get("note");
  }

  /** Where the pointer is in the picture, px from its upper left corner. */
  function pointed(event) {
    const { left, top, width, height } = svg.getBoundingClientRect(), [rows, columns] = model.get("size");
    return [((event.clientY - top) / height) * rows, ((event.clientX - left) / width) * columns];
  }

  /** Moves the centre by the steps of the sliders. It stays inside the zone's box. */
  function move(place) {
    const steps = model.get("steps");
    held = place.map((share) => Math.round(Math.min(1, Math.max(0, share)) * steps) / steps);
    draw();
  }

  function letGo() {
    if (!held) return;
    const place = held;
    held = null;
    model.set("patch", cut(place)); // shown until Python sends the patch
    model.set("place", place);
    model.save_changes();
  }

  function drag(event) {
    const box = model.get("boxes")[model.get("zone")];
    move(pointed(event).map((v, k) => (v + grip[k] - box[k]) / (box[k + 2] - box[k])));
  }

  svg.addEventListener("pointerdown", (event) => {
    if (!model.get("moves") || event.button !== 0) return;
    svg.setPointerCapture(event.pointerId);
    const [y0, x0, y1, x1] = model.get("patch"), [y, x] = pointed(event);
    const on = y0 <= y && y < y1 && x0 <= x && x < x1; // a click beside the patch moves its centre to the pointer
    const box = model.get("boxes")[model.get("zone")], place = model.get("place");
    grip = [y, x].map((v, k) => (on ? box[k] + place[k] * (box[k + 2] - box[k]) - v : 0));
    drag(event);
  });
  svg.addEventListener("pointermove", (event) => svg.hasPointerCapture(event.pointerId) && drag(event));
  svg.addEventListener("lostpointercapture", letGo); // the reader lets go, or the system ends the drag
  svg.addEventListener("keydown", (event) => {
    if (!(event.key in ARROWS)) return;
    event.preventDefault(); // the page does not scroll
    if (!model.get("moves")) return;
    move((held || model.get("place")).map((share, k) => share + ARROWS[event.key][k] / model.get("steps")));
  });
  svg.addEventListener("keyup", (event) => event.key in ARROWS && letGo());
  svg.addEventListener("blur", letGo);
  model.on("change", draw);
  draw();
  return () => model.off("change", draw);
}

export default { render };
