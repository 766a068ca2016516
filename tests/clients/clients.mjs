// Clients in JavaScript against `omniburn serve` and `omniburn mcp`: clients.mjs PROGRAM DATA
// DATA is a user's data folder (XDG_DATA_HOME) with an index of the samples. Ends with 1 at the first fault.
import { spawn, execFileSync } from "node:child_process";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const require = createRequire(join(process.cwd(), "package.json"));
const from = async name => import(pathToFileURL(require.resolve(name)));
const { OpenAI } = await from("openai");
const { Client } = await from("@modelcontextprotocol/sdk/client/index.js");
const { StdioClientTransport } = await from("@modelcontextprotocol/sdk/client/stdio.js");
const { StreamableHTTPClientTransport } = await from("@modelcontextprotocol/sdk/client/streamableHttp.js");
const [program, data] = process.argv.slice(2).map(path => resolve(path));
const env = { ...process.env, XDG_DATA_HOME: data };
const texts = ["a red bicycle", "something to ride", "ein rotes Fahrrad"];

function check(what, holds, found) {
  if (!holds) throw new Error(`${what}: ${JSON.stringify(found)}`);
  console.log(`ok: ${what}`);
}

const bits = vector => Buffer.from(new Float32Array(vector).buffer).toString("hex");

async function embeddings(address) {
  const lines = execFileSync(program, ["embed", ...texts], { env, encoding: "utf8" }).trim().split("\n");
  const want = lines.map(line => bits(JSON.parse(line).embedding));
  const client = new OpenAI({ baseURL: `${address}/v1`, apiKey: "any" });
  // Without an encoding the package asks for base64 and gives numbers.
  for (const encoding of ["float", "base64", undefined]) {
    const asked = encoding ? { encoding_format: encoding } : {};
    const answer = await client.embeddings.create({ model: "omniburn-mini", input: texts, ...asked });
    const found = answer.data.map(({ embedding }) => typeof embedding === "string" ? Buffer.from(embedding, "base64").toString("hex") : bits(embedding));
    check(`openai, ${encoding}: ${found.length} vectors equal to the bit`, JSON.stringify(found) === JSON.stringify(want), found);
  }
  const wrong = await client.embeddings.create({ model: "another", input: "a" }).catch(error => error);
  check("openai, an unknown model is its NotFoundError", wrong instanceof OpenAI.NotFoundError && wrong.message.includes("omniburn-mini"), wrong);
  const models = [];
  for await (const model of client.models.list()) models.push(model.id);
  check("openai, models", models.join() === "omniburn-mini", models);
}

async function tools(transport, what) {
  const client = new Client({ name: "test", version: "1" });
  await client.connect(transport);
  const { tools } = await client.listTools();
  check(`${what}: three tools`, tools.map(tool => tool.name).join() === "search,get,status", tools);
  const call = (name, given) => client.callTool({ name, arguments: given });
  const found = await call("search", { query: "a ship under sail", kind: "video,image", n: 3 });
  const [first] = found.structuredContent.hits;
  check(`${what}: search finds the ship`, first.path.includes("boat-sailing"), found);
  const { content: [frame] } = await call("get", { id: first.id });
  check(`${what}: get gives a frame`, frame.type === "image" && Buffer.from(frame.data, "base64").subarray(1, 4).toString() === "PNG", frame.type);
  const words = await call("search", { query: "bicycle tyre", kind: "text", mode: "words", related_only: false });
  const { content: [line] } = await call("get", { id: words.structuredContent.hits[0].id, at: "line=1" });
  check(`${what}: get gives lines`, line.text.includes("tyre"), line);
  const status = await call("status", {});
  check(`${what}: status`, status.structuredContent.files.video === 6, status);
  const wrong = await call("search", { query: "a", pages: 3 }).catch(error => error);
  check(`${what}: an unknown argument is an error`, wrong instanceof Error && wrong.message.includes("pages"), wrong);
  await client.close();
}

await tools(new StdioClientTransport({ command: program, args: ["mcp"], env }), "mcp, stdio");
const server = spawn(program, ["serve", "--port", "0"], { env, stdio: ["ignore", "ignore", "pipe"] });
try {
  let address;
  for await (const line of createInterface({ input: server.stderr })) {
    address = /http:\/\/[^;]*/.exec(line)?.[0];
    if (address) break;
  }
  server.stderr.resume();
  await embeddings(address);
  await tools(new StreamableHTTPClientTransport(new URL(`${address}/mcp`)), "mcp, http");
} finally {
  server.kill("SIGTERM");
}
