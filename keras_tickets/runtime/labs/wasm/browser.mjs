// LiteRT.js expects a browser's worker. This is what it uses of one.

import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import v8 from "node:v8";
import vm from "node:vm";

// Browsers have had relaxed SIMD since 2023; Node 20 has it behind this flag.
if (Number(process.versions.node.split(".")[0]) < 21) {
  v8.setFlagsFromString("--experimental-wasm-relaxed-simd");
}

globalThis.self = globalThis;
globalThis.require = createRequire(import.meta.url);

// LiteRT.js loads its WebAssembly by a classic script, found by `__dirname`.
globalThis.importScripts = (file) => {
  globalThis.__dirname = path.dirname(file);
  globalThis.__filename = file;
  // `var` of a script is global; `const` and `let` would not be seen through `self`.
  vm.runInThisContext(fs.readFileSync(file, "utf8"), { filename: file });
};
