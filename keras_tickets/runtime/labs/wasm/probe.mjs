// Counts which nodes of a file run in a sparse kernel.
//
// LiteRT.js is WebAssembly without names. But XNNPACK calls its kernels, and TFLite its
// operators, through the table of functions. Each entry of the right type is replaced by
// a caller, which first calls back to here and then the function that was there. What a
// call is told by what lies in memory: nothing is concluded from the file.

// The version whose insides are known.
const KNOWN = "2.5.3";

// XNNPACK's sparse kernels: (pixels, outputs, input, weights, steps, counts, output,
// stride, limits).
const SPARSE_KERNEL = { parameters: 9, results: 0 };
// TFLite's operators: (context, node), and a status.
const OPERATOR = { parameters: 2, results: 1 };

// Where things are in the structures of TFLite, in words.
const CONTEXT = { tensors: 2 };
const NODE = { inputs: 0, invoke: 13, operator: 15 };
const TENSOR = { type: 0, values: 1, bytes: 6, sparsity: 14, size: 16 };
const SPARSITY = { levels: 2, count: 3 };
const LEVEL = { length: 1, segments: 2, size: 4 };

const FULLY_CONNECTED = 9;
const TYPES = { 1: { type: "f32", width: 4 }, 9: { type: "int8", width: 1 } };

// Starts to count in the LiteRT.js that is loaded next.
export function watch(version) {
  if (version !== KNOWN) {
    throw new Error(`The probe knows LiteRT.js ${KNOWN}; this is ${version}.`);
  }
  const probe = new Probe();
  const instantiate = WebAssembly.instantiate;
  WebAssembly.instantiate = async (...given) => {
    const made = await instantiate(...given);
    probe.install(Object.values(made.instance?.exports ?? {}));
    return made;
  };
  return probe;
}

class Probe {
  #memory;
  #table;
  #tiles = new Map();
  #kernels = { convolution: new Map(), dense: new Map() };
  #operators = 0;
  #odd = [];

  // Puts a caller before each function that may be a sparse kernel, or an operator.
  install(exported) {
    this.#table = exported.find((value) => value instanceof WebAssembly.Table);
    this.#memory = exported.find((value) => value instanceof WebAssembly.Memory);
    if (!this.#table || !this.#memory) return; // A trial of what Node can do.
    this.#replace(SPARSE_KERNEL, (slot, ...values) => this.#kernel(slot, ...values));
    this.#replace(OPERATOR, (slot, ...values) => this.#operator(slot, ...values));
  }

  counted() {
    // Whatever a file holds, some operator runs it.
    if (!this.#operators) this.#odd.push("no operator was seen to run");
    if (this.#odd.length) {
      const what = this.#odd.join("; ");
      throw new Error(`LiteRT.js differs from what the probe knows: ${what}.`);
    }
    const list = (kernels) =>
      [...kernels].map(([kernel, { nodes, calls }]) => {
        return { kernel, outputs: [...nodes.values()], calls };
      });
    const { convolution, dense } = this.#kernels;
    return { convolution: list(convolution), dense: list(dense) };
  }

  #replace(type, count) {
    const caller = callerOf(type);
    let replaced = 0;
    for (let slot = 0; slot < this.#table.length; slot++) {
      const original = this.#table.get(slot);
      if (!original) continue;
      const counting = (...values) => count(slot, ...values);
      const { exports } = link(caller, { count: counting, original }) ?? {};
      if (!exports) continue;
      this.#table.set(slot, exports.call);
      replaced++;
    }
    if (!replaced) this.#odd.push(`no function takes ${type.parameters} arguments`);
  }

  #kernel(slot, _pixels, outputs, _input, weights, steps, counts) {
    const tile = this.#tile(slot);
    if (!tile) return; // Another kernel of so many arguments.
    const name = `f32 ${tile.pixels}x${tile.outputs}`;
    if (!isPacked(this.#words(), tile.outputs, outputs, weights, steps, counts)) {
      this.#odd.push(`weights of ${name} are packed in another way`);
    }
    this.#count("convolution", name, weights, outputs);
  }

  #operator(slot, context, node) {
    const words = this.#words();
    const at = (address, index) => words[(address >>> 2) + index];
    if (at(node, NODE.invoke) !== slot) return; // Another function of two arguments.
    this.#operators++;
    if (at(node, NODE.operator) !== FULLY_CONNECTED) return;
    // A list begins with its length; the inputs are a vector and the weights.
    const [vector, weights] = [1, 2].map((input) => {
      const index = at(at(node, NODE.inputs), input);
      return at(context, CONTEXT.tensors) + index * TENSOR.size * 4;
    });
    const sparsity = at(weights, TENSOR.sparsity);
    // Outputs, inputs without empty blocks, and the inside of a block.
    if (!sparsity || at(sparsity, SPARSITY.count) !== 3) return;
    const levels = at(sparsity, SPARSITY.levels);
    const level = (number, field) => at(levels, number * LEVEL.size + LEVEL[field]);
    const outputs = level(0, "length");
    const block = level(2, "length");
    // Behind its length: at which block each output begins, and where the last one ends.
    const blocks = at(level(1, "segments"), 1 + outputs);
    const { type, width } = TYPES[at(weights, TENSOR.type)] ?? {};
    if (at(weights, TENSOR.bytes) !== blocks * block * width) {
      this.#odd.push("weights of a dense layer are not the stored blocks");
    }
    // Else the vector is rounded to the type of the weights when it comes.
    const same = at(vector, TENSOR.type) === at(weights, TENSOR.type);
    const name = `${type}${same ? "" : "-dynamic"} 1x${block}`;
    this.#count("dense", name, at(weights, TENSOR.values), outputs);
  }

  #count(kind, name, weights, outputs) {
    const kernels = this.#kernels[kind];
    if (!kernels.has(name)) kernels.set(name, { nodes: new Map(), calls: 0 });
    const kernel = kernels.get(name);
    kernel.calls++;
    if (!kernel.nodes.has(weights)) kernel.nodes.set(weights, outputs);
  }

  // How much a sparse kernel computes together; undefined if it is no sparse kernel.
  #tile(slot) {
    if (!this.#tiles.has(slot)) this.#tiles.set(slot, this.#config(slot));
    return this.#tiles.get(slot);
  }

  // XNNPACK has a structure for each: the kernel, a function that fills in its limits,
  // then in a byte each how many pixels and how many outputs it computes together.
  #config(slot) {
    const words = this.#words();
    for (let at = words.indexOf(slot); at >= 0; at = words.indexOf(slot, at + 1)) {
      const [fills, tile] = words.subarray(at + 1, at + 3);
      const [pixels, outputs] = [tile & 0xff, tile >>> 8];
      const isFunction = fills > 0 && fills < this.#table.length;
      if (isFunction && pixels && [1, 2, 4].includes(outputs)) return { pixels, outputs };
    }
  }

  #words() {
    // Anew each time: when memory grows, the old buffer is gone.
    return new Uint32Array(this.#memory.buffer);
  }
}

// Whether weights are as XNNPACK packs them for a sparse kernel: from each stored block
// of outputs how far to the input of the next (the last returns to the first), how many
// each has, the values.
function isPacked(words, rows, outputs, weights, steps, counts) {
  const [first, second, third] = [steps >>> 2, counts >>> 2, weights >>> 2];
  const blocks = Math.floor(outputs / rows) + (outputs % rows);
  if (third - second !== blocks) return false;
  if (sum(words.subarray(second, third)) !== second - first) return false;
  return sum(words.subarray(first, second)) === 0;
}

// Of signed numbers: steps go back, too.
const sum = (words) => words.reduce((total, word) => total + (word | 0), 0);

// A module of one function, which calls `count` and then `original`.
function callerOf({ parameters, results }) {
  const [I32, GET, CALL, DROP, END] = [0x7f, 0x20, 0x10, 0x1a, 0x0b];
  const list = (items) => [items.length, ...items.flat()];
  const text = (word) => list([...Buffer.from(word)]);
  const section = (id, ...items) => [id, list(list(items))].flat();
  const imported = (name) => [...text(""), ...text(name), 0, 0];
  const values = (count) => list(Array(count).fill(I32));
  const given = [...Array(parameters).keys()].flatMap((index) => [GET, index]);
  const drop = Array(results).fill(DROP);
  const body = [0, ...given, CALL, 0, ...drop, ...given, CALL, 1, END];
  return new WebAssembly.Module(
    new Uint8Array([
      ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
      ...section(1, [0x60, ...values(parameters), ...values(results)]),
      ...section(2, imported("count"), imported("original")),
      ...section(3, [0]),
      ...section(7, [...text("call"), 0, 2]),
      ...section(10, list(body)),
    ]),
  );
}

// An instance; undefined if what it imports is of another type.
function link(module, imported) {
  try {
    return new WebAssembly.Instance(module, { "": imported });
  } catch (error) {
    if (!(error instanceof WebAssembly.LinkError)) throw error;
  }
}
