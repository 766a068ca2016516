// The page in a browser, as people use it: page.mjs ADDRESS IMAGE SHOTS
// ADDRESS of a server over an index of the samples, IMAGE to drop, SHOTS a folder for screenshots. Ends with 1 at the first fault.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createRequire } from "node:module";

const require = createRequire(join(process.cwd(), "package.json"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const [address, image, shots] = process.argv.slice(2);
const flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || "/usr/bin/chromium", args: flags });

function check(what, holds, found) {
  if (!holds) throw new Error(`${what}: ${JSON.stringify(found)}`);
  console.log(`ok: ${what}`);
}

async function serious(page, what) {
  // The page's own policy lets no other script in, so this one goes in by the browser's door.
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => axe.run());
  const bad = violations.filter(one => ["serious", "critical"].includes(one.impact));
  check(`axe finds no serious fault, ${what}`, bad.length === 0, bad.map(one => [one.id, one.nodes.map(node => node.html)]));
}

try {
  const context = await browser.newContext({ viewport: { width: 1100, height: 900 } });
  const page = await context.newPage();
  const faults = [];
  page.on("pageerror", error => faults.push(String(error)));
  page.on("console", message => message.type() === "error" && faults.push(message.text()));
  await page.goto(address);
  await page.waitForSelector("#kinds button");
  const count = () => page.locator("#hits li").count();
  const names = () => page.locator("#hits .name").allTextContents();

  // Typing finds, soon.
  await page.locator("#query").pressSequentially("a ship under sail");
  await page.waitForSelector("#hits li");
  await page.waitForFunction(() => document.getElementById("state").textContent.includes("result"));
  const times = [];
  for (const text of ["a musical instrument", "a drink for breakfast", "an animal with stripes", "a bicycle", "a ship under sail"]) {
    await page.locator("#query").fill("");
    await page.waitForFunction(() => !document.querySelector("#hits li"));
    const begun = Date.now();
    await page.locator("#query").fill(text);
    await page.waitForSelector("#hits li");
    times.push(Date.now() - begun);
  }
  times.sort((a, b) => a - b);
  check(`first result ${times[2]} ms after a key, in the median`, times[2] < 1500, times);
  check("a ship is found", (await names()).some(name => /boat|sail/.test(name)), await names());
  await page.waitForFunction(() => [...document.querySelectorAll("#hits img")].some(image => image.complete && image.naturalWidth));
  await page.screenshot({ path: join(shots, "search.png") });
  await serious(page, "with results");

  // Nothing related, and everything where that is asked for.
  await page.locator("#query").fill("quarterly tax of the municipality of Utrecht");
  await page.waitForTimeout(500);
  const few = await count();
  await page.locator("#related").uncheck();
  await page.waitForFunction(few => document.querySelectorAll("#hits li").length > few, few);
  await page.locator("#related").check();

  // A kind, kept in the address and after a reload.
  await page.locator("#query").fill("a ship under sail");
  await page.locator("#query").press("Enter");
  await page.locator("#kinds button", { hasText: "video" }).click();
  await page.waitForFunction(() => document.querySelectorAll("#hits li").length && [...document.querySelectorAll("#hits .about")].every(one => one.textContent.includes("video")));
  check("state is in the address", page.url().includes("kind=video") && page.url().includes("q=a+ship"), page.url());
  await page.reload();
  await page.waitForSelector("#hits li");
  check("it is there after a reload", (await page.locator("#kinds button[aria-pressed=true]").count()) === 1, page.url());
  await page.locator("#kinds button[aria-pressed=true]").click();

  // By the keyboard alone.
  await page.locator("body").click({ position: { x: 5, y: 5 } });
  await page.keyboard.press("/");
  await page.keyboard.type("where is the guitar");
  await page.waitForSelector("#hits li");
  await page.waitForTimeout(400);
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  await page.waitForSelector("dialog[open]");
  await page.keyboard.press("Escape");
  await page.waitForFunction(() => !document.querySelector("dialog[open]"));
  check("opened and closed by the keyboard", true);

  // Audio has a player and a waveform, a video a player, a text its words.
  for (const [kind, wanted] of [["audio", "audio"], ["video", "video"], ["text", "pre"]]) {
    await page.goto(`${address}/?q=music&kind=${kind}&all=1`);
    await page.waitForSelector("#hits li");
    await page.locator("#hits .name").first().click();
    await page.waitForSelector(`#viewer-body ${wanted}`);
    if (kind === "audio") {
      await page.waitForFunction(() => { const canvas = document.querySelector("#viewer-body canvas"); return canvas && canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some(value => value); });
      await page.waitForFunction(() => document.querySelector("#viewer-body audio").duration > 0);
    }
    await page.screenshot({ path: join(shots, `open-${kind}.png`) });
    if (kind === "text") await serious(page, "with a file open");
    await page.keyboard.press("Escape");
  }

  // An image dropped on the page finds its like; so does a file that was found.
  await page.goto(address);
  await page.waitForSelector("#kinds button");
  const data = readFileSync(image).toString("base64");
  await page.evaluate(async data => {
    const bytes = Uint8Array.from(atob(data), letter => letter.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], "dropped.jpg", { type: "image/jpeg" }));
    window.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
  }, data);
  await page.waitForSelector("#hits li");
  check("a dropped image finds", (await names())[0].includes("cat"), await names());
  await page.locator("#hits li button", { hasText: "More like this" }).first().click();
  await page.waitForFunction(() => location.search.includes("like="));
  await page.waitForSelector("#hits li");
  check("more like this", (await count()) > 0);

  // The map: points, thumbnails when near, dragging, keys, the list for those who do not see it, and the ring of what is found.
  await page.goto(address);
  await page.waitForSelector("#kinds button");
  await page.locator("#view-map").click();
  const plane = page.locator("#map-canvas");
  const figure = name => plane.evaluate((canvas, name) => Number(canvas.dataset[name]), name);
  const drawn = () => plane.evaluate(canvas => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.reduce((sum, value, at) => sum + (at % 4 === 3 && value ? 1 : 0), 0));
  await page.waitForFunction(() => Number(document.getElementById("map-canvas").dataset.visible) > 10);
  const all = await figure("visible");
  await page.waitForFunction(() => document.getElementById("map-count").textContent);
  check("the map has every file in view", (await page.locator("#map-count").textContent()).startsWith(`${all} of ${all}`), all);
  check("points are drawn", (await drawn()) > 200);
  check("the state of the map is in the address", page.url().includes("view=map"), page.url());
  await page.screenshot({ path: join(shots, "map.png") });
  await serious(page, "with the map");
  await plane.focus();
  for (let i = 0; i < 12 && (await figure("visible")) > 8; i++) { await page.keyboard.press("+"); await page.waitForTimeout(220); }
  check("keys bring it nearer", (await figure("visible")) < all, await figure("visible"));
  const near = await figure("visible"), before = await page.locator("#map-near li").allTextContents();
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("ArrowUp");
  await page.waitForTimeout(500);
  check("keys move it", JSON.stringify(await page.locator("#map-near li").allTextContents()) !== JSON.stringify(before) || (await figure("visible")) !== near);
  await page.keyboard.press("0");
  await page.waitForFunction(all => Number(document.getElementById("map-canvas").dataset.visible) === all, all);
  const box = await plane.boundingBox();
  await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
  for (let i = 0; i < 30 && !(await figure("pictures")); i++) { await page.mouse.wheel(0, -120); await page.waitForTimeout(120); }
  await page.waitForTimeout(500);
  check("images are drawn when near", (await figure("pictures")) > 0, await figure("pictures"));
  await page.screenshot({ path: join(shots, "map-near.png") });
  const held = await figure("visible");
  await page.mouse.down();
  await page.mouse.move(box.x + 20, box.y + 20, { steps: 6 });
  await page.mouse.up();
  await page.waitForTimeout(400);
  check("dragging moves it and opens nothing", !(await page.locator("dialog[open]").count()) && (await figure("visible")) !== held, [held, await figure("visible")]);
  await page.locator("#map-all").click();
  await page.waitForFunction(all => Number(document.getElementById("map-canvas").dataset.visible) === all, all);
  await page.locator("#map-near button").first().focus();
  await page.keyboard.press("Enter");
  await page.waitForSelector("dialog[open]");
  await page.keyboard.press("Escape");
  check("a file of the list is opened by keys", !(await page.locator("dialog[open]").count()));
  await page.locator("#query").fill("a ship under sail");
  await page.waitForFunction(() => document.getElementById("state").textContent.includes("result"));
  await page.locator("#view-list").click();
  await page.waitForSelector("#hits li");
  check("the list comes back with what was found", (await count()) > 0 && !page.url().includes("view=map"), page.url());
  check("no fault on the page", faults.length === 0, faults);

  // The description of the interface.
  await page.goto(`${address}/docs`);
  await page.waitForSelector("section[id='post/v1/embeddings']");
  const section = page.locator("section[id='post/v1/embeddings']");
  await section.locator("summary").click();
  await section.locator("textarea").fill('{"input": "a red bicycle"}');
  await section.locator("button").click();
  await page.waitForFunction(() => document.querySelector("section[id='post/v1/embeddings'] pre").textContent.startsWith("200"));
  check("/docs answers", (await section.locator("pre").textContent()).includes('"embedding"'));
  await serious(page, "of /docs");
  check("no fault of /docs", faults.length === 0, faults);

  // Narrow and dark.
  const phone = await browser.newContext({ viewport: { width: 375, height: 740 }, colorScheme: "dark", reducedMotion: "reduce", deviceScaleFactor: 2, isMobile: true, hasTouch: true });
  const small = await phone.newPage();
  await small.goto(`${address}/?q=a+musical+instrument`);
  await small.waitForSelector("#hits li");
  const wide = await small.evaluate(() => document.documentElement.scrollWidth);
  check("nothing is wider than a phone", wide <= 375, wide);
  await small.screenshot({ path: join(shots, "phone-dark.png") });
  await serious(small, "narrow and dark");
  await small.locator("#view-map").tap();
  await small.waitForFunction(() => Number(document.getElementById("map-canvas").dataset.visible) > 10);
  check("the map is no wider than a phone", (await small.evaluate(() => document.documentElement.scrollWidth)) <= 375);
  const scales = await small.evaluate(() => { const before = camera.scale; document.getElementById("map-in").click(); return camera.scale / before; });
  check("without motion where none is wanted, nearer at once", Math.abs(scales - 1.6) < 1e-6, scales);
  await small.screenshot({ path: join(shots, "map-phone-dark.png") });
  await serious(small, "the map, narrow and dark");
} finally {
  await browser.close();
}
