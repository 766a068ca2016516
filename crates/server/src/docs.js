"use strict";
// The description of the interface, drawn; every text goes in as text, never as markup.
const paths = document.getElementById("paths");

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function resolved(schema, all) {
  const name = schema && schema.$ref && schema.$ref.split("/").pop();
  return name ? all[name] : schema || {};
}

// What a value may be, in words.
function words(schema, all) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  const one = resolved(schema, all);
  if (one.enum) return one.enum.join(", ");
  if (one.const !== undefined) return JSON.stringify(one.const);
  if (one.oneOf) return one.oneOf.map(other => words(other, all)).join(" or ");
  if (one.type === "array") return `list of ${words(one.items || {}, all)}`;
  const range = one.minimum !== undefined && one.maximum !== undefined ? `, ${one.minimum} to ${one.maximum}` : "";
  return `${[one.type || "any"].flat().join(" or ")}${range}`;
}

function table(rows) {
  const head = element("tr", {}, ...["Field", "Value", "Meaning"].map(text => element("th", { textContent: text, scope: "col" })));
  const body = rows.map(([name, needed, value, about]) => element("tr", {},
    element("td", {}, element("code", { textContent: name }), needed ? " (needed)" : ""),
    element("td", { textContent: value }), element("td", { textContent: about || "" })));
  const made = element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
  return element("div", { className: "wide", tabIndex: 0 }, made);
}

// The smallest body that a schema takes.
function example(schema, all, depth = 0) {
  const one = resolved(schema, all);
  if (one.example !== undefined) return one.example;
  if (one.enum) return one.enum[0];
  if (one.oneOf) return example(one.oneOf[0], all, depth);
  if (one.type === "array") return depth > 3 ? [] : [example(one.items || {}, all, depth + 1)];
  if (one.type === "object") {
    return Object.fromEntries((one.required || []).map(name => [name, example(one.properties[name], all, depth + 1)]));
  }
  return { integer: 1, number: 0, boolean: true }[one.type] ?? "a red bicycle";
}

function trial(method, path, operation, all) {
  const made = element("details", {}, element("summary", { textContent: "Try it" }));
  const body = operation.requestBody && operation.requestBody.content["application/json"];
  const address = element("input", { value: path, type: "text" });
  address.setAttribute("aria-label", "Path");
  const text = element("textarea", { rows: 6, spellcheck: false });
  text.setAttribute("aria-label", "Body");
  if (body) text.value = JSON.stringify(example(body.schema, all), null, 2);
  const answer = element("pre", { tabIndex: 0 });
  answer.setAttribute("aria-live", "polite");
  const send = element("button", { type: "button", textContent: "Send" });
  send.addEventListener("click", async () => {
    const headers = {}, key = document.getElementById("key").value;
    if (key) headers.authorization = `Bearer ${key}`;
    if (body) headers["content-type"] = "application/json";
    try {
      const found = await fetch(address.value, { method: method.toUpperCase(), headers, body: body ? text.value : undefined });
      const said = await found.text();
      answer.textContent = `${found.status} ${found.statusText}\n${said.length > 4000 ? said.slice(0, 4000) + "…" : said}`;
    } catch (error) {
      answer.textContent = error.message;
    }
  });
  made.append(element("p", {}, address, " ", send), ...(body ? [text] : []), answer);
  return made;
}

function section(path, method, operation, all) {
  const made = element("section", { id: `${method}${path}` }, element("h3", {},
    element("span", { className: "method", textContent: method.toUpperCase() }), " ", element("code", { textContent: path })),
    element("p", { textContent: operation.summary }));
  const parameters = operation.parameters || [];
  if (parameters.length) {
    made.append(table(parameters.map(one => [one.name, one.required, words(one.schema, all), one.description || one.schema.description])));
  }
  const body = operation.requestBody && operation.requestBody.content["application/json"];
  if (body) {
    const schema = resolved(body.schema, all);
    const needed = schema.required || [];
    made.append(table(Object.entries(schema.properties || {}).map(([name, field]) =>
      [name, needed.includes(name), words(field, all), field.description || resolved(field, all).description])));
  }
  made.append(trial(method, path, operation, all));
  return made;
}

async function draw() {
  try {
    const answer = await fetch("/openapi.json");
    const described = await answer.json();
    if (!answer.ok) throw new Error(described.error ? described.error.message : answer.statusText);
    const all = described.components.schemas, groups = new Map();
    for (const [path, methods] of Object.entries(described.paths)) {
      for (const [method, operation] of Object.entries(methods)) {
        const tag = (operation.tags || ["other"])[0];
        if (!groups.has(tag)) groups.set(tag, []);
        groups.get(tag).push(section(path, method, operation, all));
      }
    }
    paths.replaceChildren(...[...groups].map(([tag, list]) => element("section", {}, element("h2", { textContent: tag }), ...list)));
  } catch (error) {
    paths.replaceChildren(element("p", { textContent: error.message }));
  }
  paths.setAttribute("aria-busy", "false");
}

draw();
