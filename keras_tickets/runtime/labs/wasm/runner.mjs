// Runs one .tflite file in LiteRT.js: `node runner.mjs FILE [--probe]`.
//
// One line of JSON on stdout says that the file is loaded, or why not; then each line
// of JSON on stdin asks for some runs on the same inputs, and one on stdout answers with
// their times. Arrays are raw files; the outputs are those of the last run. With --probe
// each answer also says which nodes have run in sparse kernels so far.

import fs from "node:fs";
import path from "node:path";
import readline from "node:readline";
import { fileURLToPath } from "node:url";

const HERE = path.dirname(fileURLToPath(import.meta.url));
const CORE = path.join(HERE, "node_modules", "@litertjs", "core");

// LiteRT.js only logs most of its errors and then answers zeros: the log is watched.
const errors = [];
for (const level of ["debug", "info", "log", "warn", "error"]) {
  console[level] = (...words) => {
    const line = words.join(" ");
    if (line.startsWith("ERROR: ")) errors.push(line.slice("ERROR: ".length));
    process.stderr.write(line + "\n");
  };
}

const ARRAYS = { float32: Float32Array, int32: Int32Array, uint8: Uint8Array };

const VERSION = JSON.parse(fs.readFileSync(path.join(CORE, "package.json"))).version;

await import("./browser.mjs");
const { watch } = await import("./probe.mjs");
const { loadAndCompile, loadLiteRt, Tensor } = await import("@litertjs/core");

function say(answer) {
  // Synchronous, so that nothing is written while a run is timed.
  fs.writeSync(1, JSON.stringify(answer) + "\n");
}

function refuse() {
  if (errors.length) throw new Error(errors.splice(0).join("; "));
}

function read({ file, dtype, shape }) {
  const bytes = fs.readFileSync(file);
  const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
  return new Tensor(new ARRAYS[dtype](buffer), shape);
}

const ports = (details) =>
  details.map(({ name, dtype, shape }) => ({ name, dtype, shape: [...shape] }));

async function run(model, request, probe) {
  const inputs = model.getInputDetails().map(({ name }) => read(request.inputs[name]));
  const seconds = [];
  let outputs = [];
  try {
    for (let i = 0; i < request.runs; i++) {
      for (const tensor of outputs.splice(0)) tensor.delete();
      const start = performance.now();
      outputs = await model.run(inputs);
      seconds.push((performance.now() - start) / 1000);
    }
    refuse();
    outputs.forEach((tensor, i) => {
      fs.writeFileSync(path.join(request.outputs, `output_${i}`), tensor.toTypedArray());
    });
    const shapes = outputs.map(({ type }) => [...type.layout.dimensions]);
    return { seconds, shapes, ran: probe?.counted() };
  } finally {
    for (const tensor of [...inputs, ...outputs]) tensor.delete();
  }
}

async function serve(file, option) {
  const probe = option === "--probe" ? watch(VERSION) : undefined;
  await loadLiteRt(path.join(CORE, "wasm") + "/");
  const model = await loadAndCompile(fs.readFileSync(file), { accelerator: "wasm" });
  refuse();
  say({
    inputs: ports(model.getInputDetails()),
    outputs: ports(model.getOutputDetails()),
    version: VERSION,
    build: path.basename(globalThis.__filename, ".js"),
    node: process.versions.node,
  });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    say(await run(model, JSON.parse(line), probe));
  }
}

try {
  await serve(...process.argv.slice(2));
} catch (error) {
  // C++ exceptions arrive as numbers; what they said is in the log.
  const words = [error?.message ?? String(error), ...errors];
  say({ error: words.join("; ") });
}
