"use strict";
// Search as one types over the served index. No dependency; every text goes in as text, never as markup.
const $ = id => document.getElementById(id);
const [query, hits, state, kinds, viewer] = ["query", "hits", "state", "kinds", "viewer"].map($);
let chosenKinds = new Set(), like = null, dropped = null, found = [], chosen = -1, asking = null, timer = 0, mapped = false, seen = "";

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

async function ask(path, options = {}) {
  const answer = await fetch(path, options);
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error ? body.error.message : answer.statusText);
  return body;
}

function address() {
  const parameters = new URLSearchParams();
  if (query.value.trim()) parameters.set("q", query.value.trim());
  if (chosenKinds.size) parameters.set("kind", [...chosenKinds].join(","));
  if (like) parameters.set("like", like);
  if (!$("related").checked) parameters.set("all", "1");
  if (mapped) parameters.set("view", "map");
  return parameters;
}

function fromAddress() {
  const parameters = new URLSearchParams(location.search);
  query.value = parameters.get("q") || "";
  chosenKinds = new Set((parameters.get("kind") || "").split(",").filter(Boolean));
  like = parameters.get("like");
  $("related").checked = !parameters.has("all");
  view(parameters.get("view") === "map");
  [...kinds.children].forEach(one => one.setAttribute("aria-pressed", chosenKinds.has(one.dataset.kind)));
}

// The list of what was found, or the map with it ringed.
function view(map) {
  mapped = map;
  $("view-list").setAttribute("aria-pressed", !map);
  $("view-map").setAttribute("aria-pressed", map);
  $("map").hidden = !map;
  hits.hidden = map;
  if (map) showMap();
}

async function search(push = true) {
  clearTimeout(timer);
  if (asking) asking.abort();
  const parameters = address(), text = parameters.get("q");
  $("like").hidden = !like && !dropped;
  $("like-what").textContent = dropped ? `Searching with ${dropped.name}` : like ? "Searching for more like one of your files" : "";
  const shown = parameters.toString();
  if (push && location.search !== (shown ? "?" + shown : "")) history.pushState(null, "", shown ? "?" + shown : location.pathname);
  if (!text && !like && !dropped) {
    show([], []);
    state.textContent = "";
    return;
  }
  asking = new AbortController();
  const wanted = { n: 30, kind: [...chosenKinds].join(",") };
  // What is given as an example has no words to be unrelated to.
  if ($("related").checked && !dropped && !like) wanted.min_score = "auto";
  try {
    let answer;
    const options = { method: "POST", signal: asking.signal, headers: { "content-type": "application/json" } };
    if (dropped) options.body = JSON.stringify({ ...wanted, query: { [dropped.kind]: dropped.data } });
    else if (like) options.body = JSON.stringify({ ...wanted, like });
    else options.body = JSON.stringify({ ...wanted, query: text });
    answer = await ask("/v1/search", options);
    show(answer.data, answer.lit);
    const count = answer.data.length;
    state.textContent = count ? `${count} ${count === 1 ? "result" : "results"} in ${Math.round(answer.ms)} ms` : "Nothing related was found.";
  } catch (error) {
    if (error.name === "AbortError") return;
    show([], []);
    state.textContent = error.message;
  }
}

function place(hit) {
  const { line, last, page, start_s, end_s } = hit.locator || {};
  if (page) return [`page ${page}`, `page=${page}`];
  if (start_s !== undefined && start_s !== null) return [`${clock(start_s)} to ${clock(end_s)}`, `t=${start_s}-${end_s}`];
  if (line) return [`line ${line}`, `line=${line}-${last || line}`];
  return ["", ""];
}

const clock = s => `${Math.floor(s / 60)}:${String(Math.floor(s % 60)).padStart(2, "0")}`;
const name = path => path.split(/[\\/]/).pop();

function snippet(text, ranges) {
  const made = element("p", { className: "snippet" });
  let at = 0;
  for (const [from, to] of ranges) {
    made.append(text.slice(at, from), element("mark", { textContent: text.slice(from, to) }));
    at = to;
  }
  made.append(text.slice(at));
  return made;
}

function show(list, lit) {
  found = list;
  chosen = -1;
  ring(list);
  hits.replaceChildren(...list.map((hit, index) => {
    const look = element("div", { className: "look", ariaHidden: "true" });
    if (hit.kind === "image" || hit.kind === "video") {
      const image = element("img", { alt: "", loading: "lazy", src: `/v1/items/${hit.id}/thumbnail?v=${Math.round(hit.mtime)}` });
      image.addEventListener("error", () => look.replaceChildren(hit.kind));
      look.append(image);
    } else look.append(hit.kind);
    const opener = element("button", { className: "name", type: "button", textContent: hit.title || name(hit.path) });
    opener.addEventListener("click", () => open(hit));
    const more = element("button", { type: "button", textContent: "More like this" });
    more.setAttribute("aria-label", `More like this: ${name(hit.path)}`);
    more.addEventListener("click", () => { dropped = null; like = hit.id; query.value = ""; search(); });
    const bar = element("span", { className: "score", title: "How likely it is related" }, element("i"));
    bar.firstChild.style.width = `${Math.round(100 * Math.max(0, Math.min(1, hit.score)))}%`;
    const about = element("p", { className: "about" }, bar, `${hit.score.toFixed(2)} · ${hit.kind}${place(hit)[0] ? " · " + place(hit)[0] : ""} · `, more);
    const body = element("div", {}, opener, element("p", { className: "path", textContent: hit.path }));
    if (hit.snippet) body.append(snippet(hit.snippet, lit[index] || []));
    body.append(about);
    return element("li", {}, look, body);
  }));
}

function choose(index) {
  if (!found.length) return;
  chosen = Math.max(0, Math.min(found.length - 1, index));
  [...hits.children].forEach((one, i) => one.classList.toggle("chosen", i === chosen));
  const opener = hits.children[chosen].querySelector(".name");
  opener.focus({ preventScroll: true });
  hits.children[chosen].scrollIntoView({ block: "nearest" });
}

async function waveform(canvas, bytes, from, to) {
  const audio = await new OfflineAudioContext(1, 1, 22050).decodeAudioData(bytes);
  const samples = audio.getChannelData(0), pen = canvas.getContext("2d");
  canvas.width = canvas.clientWidth * devicePixelRatio;
  canvas.height = canvas.clientHeight * devicePixelRatio;
  const style = getComputedStyle(document.documentElement);
  for (let x = 0; x < canvas.width; x++) {
    const [a, b] = [x, x + 1].map(at => Math.floor(at * samples.length / canvas.width));
    let peak = 0;
    for (let i = a; i < b; i += 8) peak = Math.max(peak, Math.abs(samples[i]));
    const second = x / canvas.width * audio.duration;
    pen.fillStyle = style.getPropertyValue(from !== undefined && second >= from && second <= to ? "--accent" : "--soft");
    pen.fillRect(x, canvas.height / 2 * (1 - peak), 1, Math.max(1, canvas.height * peak));
  }
}

async function open(hit) {
  const [shown, at] = place(hit), item = `/v1/items/${hit.id}`, version = `v=${Math.round(hit.mtime)}`;
  const { start_s, end_s } = hit.locator || {};
  const body = $("viewer-body");
  $("viewer-title").textContent = hit.title || name(hit.path);
  $("viewer-about").textContent = `${hit.path}${shown ? ", " + shown : ""}`;
  body.replaceChildren();
  if (!viewer.open) viewer.showModal();
  if (hit.kind === "image") body.append(element("img", { src: `${item}?${version}`, alt: name(hit.path) }));
  else if (hit.kind === "video") {
    const video = element("video", { src: `${item}?${version}`, controls: true, poster: `${item}/thumbnail?${version}` });
    if (start_s) video.addEventListener("loadedmetadata", () => { video.currentTime = start_s; }, { once: true });
    video.addEventListener("error", () => body.replaceChildren(element("img", { src: `${item}?at=t=${start_s || 0}-${end_s || 1}&${version}`, alt: "A frame: this browser does not play the video" })));
    body.append(video);
  } else if (hit.kind === "audio") {
    const canvas = element("canvas", { ariaHidden: "true" });
    const audio = element("audio", { src: `${item}?${version}`, controls: true });
    if (start_s) audio.addEventListener("loadedmetadata", () => { audio.currentTime = start_s; }, { once: true });
    body.append(canvas, audio);
    try {
      const answer = await fetch(`${item}?${version}`);
      if (+answer.headers.get("content-length") < 50e6) await waveform(canvas, await answer.arrayBuffer(), start_s, end_s);
    } catch { canvas.remove(); }
  } else {
    const answer = await fetch(at ? `${item}?at=${encodeURIComponent(at)}` : item);
    const text = answer.ok ? await answer.text() : (await answer.json()).error.message;
    body.append(element("pre", { textContent: text.slice(0, 200000), tabIndex: 0 }));
  }
}

async function about() {
  let index;
  try {
    index = await ask("/v1/index");
  } catch (error) {
    $("index").textContent = error.message;
    query.disabled = true;
    return;
  }
  const order = Object.entries(index.files).sort((a, b) => b[1] - a[1]);
  const drawn = order.map(([kind, count]) => kind + count).join();
  if (kinds.dataset.drawn !== drawn) {
    kinds.dataset.drawn = drawn;
    kinds.replaceChildren(...order.map(([kind, count]) => {
      const chip = element("button", { type: "button", textContent: `${kind} ${count}` });
      chip.dataset.kind = kind;
      chip.setAttribute("aria-pressed", chosenKinds.has(kind));
      chip.addEventListener("click", () => {
        if (!chosenKinds.delete(kind)) chosenKinds.add(kind);
        chip.setAttribute("aria-pressed", chosenKinds.has(kind));
        search();
        if (mapped) showMap();
      });
      return chip;
    }));
  }
  const total = order.reduce((sum, [, count]) => sum + count, 0);
  const fresh = index.updated ? `, looked at ${new Date(index.updated * 1000).toLocaleString()}` : "";
  const busy = index.indexing && index.indexing.total ? ` Indexing ${index.indexing.done} of ${index.indexing.total}.` : "";
  $("index").textContent = `${total} files in ${index.folders.join(", ") || "no folder"}${fresh}, by ${index.model}.${busy}`;
  const version = `${total} ${index.vectors} ${index.bytes}`;
  if (mapped && seen && seen !== version) showMap(true);
  seen = version;
  const failed = $("failed");
  failed.hidden = !index.failed.length;
  failed.firstElementChild.textContent = `${index.failed.length} files could not be read`;
  failed.lastElementChild.replaceChildren(...index.failed.slice(0, 500).map(file => element("li", { textContent: `${file.path}: ${file.message}` })));
  setTimeout(about, busy ? 700 : 10000);
}

function drop(file) {
  const kind = ["image", "audio", "video"].find(kind => file.type.startsWith(kind + "/"));
  if (!kind) { state.textContent = `${file.name}: drop an image, audio or a video`; return; }
  const reader = new FileReader();
  reader.addEventListener("load", () => {
    dropped = { name: file.name, kind: file.type === "image/gif" ? "video" : kind, data: reader.result.replace(/^data:[^,]*,/, "") };
    like = null;
    query.value = "";
    search();
  });
  reader.readAsDataURL(file);
}

query.addEventListener("input", () => { clearTimeout(timer); like = dropped = null; timer = setTimeout(() => search(false), 120); });
$("form").addEventListener("submit", event => { event.preventDefault(); search(); if (found.length) choose(0); });
$("related").addEventListener("change", () => search());
$("like-clear").addEventListener("click", () => { like = dropped = null; search(); query.focus(); });
for (const [id, map] of [["view-list", false], ["view-map", true]]) $(id).addEventListener("click", () => { view(map); search(); });
$("viewer-close").addEventListener("click", () => viewer.close());
viewer.addEventListener("close", () => { $("viewer-body").replaceChildren(); if (chosen >= 0) choose(chosen); });
addEventListener("popstate", () => { fromAddress(); search(false); });
addEventListener("keydown", event => {
  if (viewer.open || event.target === $("map-canvas") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/" && document.activeElement !== query) { event.preventDefault(); query.focus(); query.select(); }
  else if (event.key === "ArrowDown") { event.preventDefault(); choose(chosen + 1); }
  else if (event.key === "ArrowUp" && chosen >= 0) { event.preventDefault(); if (chosen === 0) { chosen = -1; query.focus(); } else choose(chosen - 1); }
  else if (event.key === "Escape") { if (document.activeElement === query) { query.value = ""; search(); } else { chosen = -1; query.focus(); } }
});
for (const kind of ["dragover", "dragenter"]) addEventListener(kind, event => { event.preventDefault(); document.body.classList.add("dropping"); });
for (const kind of ["dragleave", "drop"]) addEventListener(kind, event => { event.preventDefault(); document.body.classList.remove("dropping"); });
addEventListener("drop", event => { if (event.dataTransfer.files[0]) drop(event.dataTransfer.files[0]); });
addEventListener("paste", event => { if (event.clipboardData.files[0]) drop(event.clipboardData.files[0]); });
// The map's script comes after this one.
addEventListener("DOMContentLoaded", () => {
  fromAddress();
  about().then(() => search(false));
});
