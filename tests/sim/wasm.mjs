// Runs seeds of the simulator in WebAssembly, and prints the seed, the nodes, the events and the state hash of each.
// Usage: node wasm.mjs FILE.wasm SEED/NODES...
import { readFileSync } from 'node:fs';

const [file, ...runs] = process.argv.slice(2);
const { instance } = await WebAssembly.instantiate(readFileSync(file), {});
const { memory, simulate, events, state_hash, violation, violation_bytes } = instance.exports;
const unsigned = (number) => BigInt.asUintN(64, number);

for (const run of runs) {
    const [seed, nodes] = run.split('/').map(BigInt);
    let broken;
    try {
        broken = simulate(seed, nodes) !== 0;
    } catch (trap) {
        if (!(trap instanceof WebAssembly.RuntimeError)) throw trap;
        broken = true;
    }
    if (broken) {
        const text = new Uint8Array(memory.buffer, violation(), violation_bytes());
        console.error(`seed ${seed} on ${nodes} nodes: ${new TextDecoder().decode(text)}`);
        process.exit(1);
    }
    const hash = unsigned(state_hash()).toString(16).padStart(16, '0');
    console.log(`${seed}/${nodes} events=${unsigned(events())} state=${hash}`);
}
