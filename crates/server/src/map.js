"use strict";
// The collection as points on a plane: moved by dragging, the wheel or keys; with a list of what is in view for those who do not see it.
const plane = $("map-canvas"), near = $("map-near");
const COLOURS = { text: "#3b82c4", code: "#7a62c9", html: "#2f8f9d", pdf: "#c23b3b", document: "#4a67d6", spreadsheet: "#2e8b57", presentation: "#c26a1c", book: "#8a5a2b", mail: "#a3338f", image: "#d9601a", audio: "#0f9d6f", video: "#b8892b" };
const NEAR = 24, THUMBNAILS = 300, SMALLEST = 1e-9;
let points = [], camera = null, held = new Map(), moved = 0, over = null, ringed = new Set(), drawing = 0, listing = 0, motion = 0, asked = false;
const thumbnails = new Map();

// Pixels of a point, and the other way round.
const onScreen = point => [plane.clientWidth / 2 + (point.x - camera.x) * camera.scale, plane.clientHeight / 2 - (point.y - camera.y) * camera.scale];
const onPlane = (x, y) => [camera.x + (x - plane.clientWidth / 2) / camera.scale, camera.y - (y - plane.clientHeight / 2) / camera.scale];

function whole() {
  const [xs, ys] = [points.map(point => point.x), points.map(point => point.y)];
  const [left, right] = [Math.min(...xs), Math.max(...xs)], [low, high] = [Math.min(...ys), Math.max(...ys)];
  const room = (pixels, span) => (pixels - 60) / Math.max(span, SMALLEST);
  const scale = Math.min(room(plane.clientWidth, right - left), room(plane.clientHeight, high - low));
  return { x: (left + right) / 2, y: (low + high) / 2, scale: Math.min(scale, 1e6) };
}

function inView() {
  const margin = 24;
  return points.filter(point => {
    const [x, y] = onScreen(point);
    return x > -margin && y > -margin && x < plane.clientWidth + margin && y < plane.clientHeight + margin;
  });
}

function shownKinds(point) {
  return !chosenKinds.size || chosenKinds.has(point.kind);
}

function thumbnail(point) {
  let image = thumbnails.get(point.id);
  if (!image) {
    image = new Image();
    image.addEventListener("load", redraw);
    image.src = `/v1/items/${point.id}/thumbnail?v=${Math.round(point.mtime)}`;
    thumbnails.set(point.id, image);
    if (thumbnails.size > THUMBNAILS) thumbnails.delete(thumbnails.keys().next().value);
  }
  return image.complete && image.naturalWidth ? image : null;
}

function draw() {
  drawing = 0;
  if ($("map").hidden || !camera) return;
  const dense = devicePixelRatio || 1, [width, height] = [plane.clientWidth, plane.clientHeight];
  if (plane.width !== Math.round(width * dense)) plane.width = Math.round(width * dense);
  if (plane.height !== Math.round(height * dense)) plane.height = Math.round(height * dense);
  const pen = plane.getContext("2d"), style = getComputedStyle(document.documentElement);
  pen.setTransform(dense, 0, 0, dense, 0, 0);
  pen.clearRect(0, 0, width, height);
  const visible = inView(), lit = visible.filter(shownKinds), large = lit.length <= 60;
  pen.font = "12px system-ui, sans-serif";
  let pictures = 0;
  for (const point of visible) {
    const [x, y] = onScreen(point), among = shownKinds(point);
    pen.globalAlpha = among ? 1 : 0.15;
    const image = large && among && (point.kind === "image" || point.kind === "video") ? thumbnail(point) : null;
    let radius = large ? 6 : 4;
    if (image) {
      const side = lit.length <= 20 ? 96 : 56, fit = side / Math.max(image.naturalWidth, image.naturalHeight);
      const [w, h] = [image.naturalWidth * fit, image.naturalHeight * fit];
      pen.drawImage(image, x - w / 2, y - h / 2, w, h);
      radius = side / 2;
      pictures += 1;
    } else {
      pen.fillStyle = COLOURS[point.kind] || "#777";
      pen.beginPath();
      pen.arc(x, y, radius, 0, 2 * Math.PI);
      pen.fill();
      if (large && lit.length <= 25 && among) {
        pen.fillStyle = style.color;
        pen.fillText(name(point.path).slice(0, 24), x + radius + 3, y + 4);
      }
    }
    if (ringed.has(point.path) || point === over) {
      pen.strokeStyle = style.getPropertyValue("--accent");
      pen.lineWidth = point === over ? 3 : 2;
      pen.beginPath();
      pen.arc(x, y, radius + 3, 0, 2 * Math.PI);
      pen.stroke();
    }
  }
  pen.globalAlpha = 1;
  if (over) {
    const [x, y] = onScreen(over), text = name(over.path), wide = pen.measureText(text).width + 12;
    const left = Math.max(2, Math.min(width - wide - 2, x - wide / 2)), top = y > 44 ? y - 40 : y + 16;
    pen.fillStyle = style.getPropertyValue("--accent");
    pen.fillRect(left, top, wide, 22);
    pen.fillStyle = matchMedia("(prefers-color-scheme: dark)").matches ? "#000" : "#fff";
    pen.fillText(text, left + 6, top + 15);
  }
  plane.dataset.pictures = pictures;
  plane.dataset.visible = visible.length;
  clearTimeout(listing);
  listing = setTimeout(list, 150);
}

function redraw() {
  if (!drawing) drawing = requestAnimationFrame(draw);
}

// Points from the middle of the view outwards.
function nearest(x, y, among = inView().filter(shownKinds)) {
  const far = point => { const [a, b] = onScreen(point); return (a - x) ** 2 + (b - y) ** 2; };
  return among.map(point => [far(point), point]).sort((a, b) => a[0] - b[0]);
}

function list() {
  const found = nearest(plane.clientWidth / 2, plane.clientHeight / 2);
  near.replaceChildren(...found.slice(0, NEAR).map(([, point]) => {
    const opener = element("button", { type: "button", className: "name", textContent: name(point.path) });
    opener.addEventListener("click", () => open(point));
    opener.addEventListener("focus", () => { over = point; redraw(); });
    return element("li", {}, opener, element("span", { className: "hint", textContent: ` ${point.kind}` }));
  }));
  $("map-count").textContent = `${found.length} of ${points.length} files in view${found.length > NEAR ? `; the ${NEAR} in its middle:` : ":"}`;
}

function go(target, steps = 10) {
  cancelAnimationFrame(motion);
  if (matchMedia("(prefers-reduced-motion: reduce)").matches || steps <= 1) {
    camera = target;
    return redraw();
  }
  const from = { ...camera }, begun = performance.now();
  const step = now => {
    const at = Math.min(1, (now - begun) / 160);
    camera = { x: from.x + (target.x - from.x) * at, y: from.y + (target.y - from.y) * at, scale: from.scale * (target.scale / from.scale) ** at };
    draw();
    if (at < 1) motion = requestAnimationFrame(step);
  };
  motion = requestAnimationFrame(step);
}

// Nearer or farther, with the place under a pixel kept where it is.
function zoom(factor, x = plane.clientWidth / 2, y = plane.clientHeight / 2, smooth = true) {
  const [before, least] = [onPlane(x, y), whole().scale / 4];
  const scale = Math.max(least, Math.min(1e7, camera.scale * factor));
  const target = { scale, x: before[0] - (x - plane.clientWidth / 2) / scale, y: before[1] + (y - plane.clientHeight / 2) / scale };
  go(target, smooth ? 10 : 1);
}

function pan(x, y, smooth = true) {
  go({ ...camera, x: camera.x + x / camera.scale, y: camera.y - y / camera.scale }, smooth ? 10 : 1);
}

function at(event) {
  const box = plane.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}

function under(x, y) {
  const [best] = nearest(x, y);
  return best && best[0] < 30 ** 2 ? best[1] : null;
}

plane.addEventListener("wheel", event => { event.preventDefault(); zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.002)), ...at(event), false); }, { passive: false });
plane.addEventListener("pointerdown", event => { plane.setPointerCapture(event.pointerId); held.set(event.pointerId, at(event)); moved = held.size > 1 ? Infinity : 0; });
plane.addEventListener("pointermove", event => {
  const now = at(event), before = held.get(event.pointerId);
  if (!before) {
    const found = under(...now);
    if (found !== over) { over = found; plane.style.cursor = found ? "pointer" : "grab"; redraw(); }
    return;
  }
  const other = [...held].find(([id]) => id !== event.pointerId);
  if (other) {
    const spread = ([x, y]) => Math.hypot(x - other[1][0], y - other[1][1]);
    zoom(spread(now) / Math.max(1, spread(before)), (now[0] + other[1][0]) / 2, (now[1] + other[1][1]) / 2, false);
  } else pan(before[0] - now[0], before[1] - now[1], false);
  moved += Math.hypot(now[0] - before[0], now[1] - before[1]);
  held.set(event.pointerId, now);
});
for (const kind of ["pointerup", "pointercancel"]) plane.addEventListener(kind, event => {
  const found = kind === "pointerup" && held.has(event.pointerId) && moved < 6 ? under(...at(event)) : null;
  held.delete(event.pointerId);
  if (found) open(found);
});
plane.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const [side, up] = [plane.clientWidth * 0.15, plane.clientHeight * 0.15];
  const keys = { ArrowLeft: () => pan(-side, 0), ArrowRight: () => pan(side, 0), ArrowUp: () => pan(0, -up), ArrowDown: () => pan(0, up), "+": () => zoom(1.6), "=": () => zoom(1.6), "-": () => zoom(1 / 1.6), "0": () => go(whole()), Enter: () => { const [best] = nearest(plane.clientWidth / 2, plane.clientHeight / 2); if (best) open(best[1]); } };
  if (!keys[event.key] || !camera) return;
  event.preventDefault();
  keys[event.key]();
});
$("map-in").addEventListener("click", () => camera && zoom(1.6));
$("map-out").addEventListener("click", () => camera && zoom(1 / 1.6));
$("map-all").addEventListener("click", () => camera && go(whole()));
new ResizeObserver(() => { if (camera) redraw(); else if (points.length && plane.clientWidth) { camera = whole(); redraw(); } }).observe(plane);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

// Asked for when it is first shown, and again when the index has changed.
async function showMap(changed = false) {
  if (asked && !changed) return redraw();
  asked = true;
  try {
    const map = await ask("/v1/map");
    points = map.points;
    over = null;
    const part = points.length < map.files ? ` of ${map.files}` : "";
    const kept = map.explained.reduce((sum, share) => sum + share, 0);
    $("map-state").textContent = points.length ? `${points.length}${part} files; near each other is what is alike. Both axes show ${Math.round(100 * kept)} % of how they differ.` : "There is nothing to draw yet.";
    const kinds = [...new Set(points.map(point => point.kind))].sort();
    $("map-legend").replaceChildren(...kinds.map(kind => {
      const dot = element("i", { ariaHidden: "true" });
      dot.style.background = COLOURS[kind] || "#777";
      return element("span", {}, dot, kind);
    }));
    if (points.length && plane.clientWidth && !camera) camera = whole();
    redraw();
  } catch (error) {
    asked = false;
    $("map-state").textContent = error.message;
  }
}

function ring(list) {
  ringed = new Set(list.map(hit => hit.path));
  redraw();
}
