// Plays runs in WebAssembly with the page's own engine.js. Usage: node wasm.mjs FILE.wasm FILE.run...
// Prints the name of each file, the steps, the step that broke (or 0), and the state hash.
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';

const [file, ...runs] = process.argv.slice(2);
const source = readFileSync(new URL('../../src/lab/page/engine.js', import.meta.url), 'utf8');
const Engine = new Function(`${source}; return Engine;`)();
const module = new WebAssembly.Module(readFileSync(file));
const engine = new Engine(module);

/** The result at the end of the run. */
function ended(end) {
    engine.seek(end);
    const { broken } = engine.state();
    return `broken=${broken ? broken[0] : 0} state=${engine.hash()}`;
}

for (const run of runs) {
    const text = readFileSync(run, 'utf8');
    const end = Number(/^(\d+) end$/m.exec(text)[1]);
    engine.open(text);
    const first = ended(end);
    // Backward, and to the end again.
    engine.seek(Math.floor(end / 2));
    if (engine.exports.lab_steps() !== Math.floor(end / 2)) throw new Error(`${run}: at ${engine.exports.lab_steps()}`);
    const again = ended(end);
    if (again !== first) throw new Error(`${run}: ${first}, and after a step backward ${again}`);
    console.log(`${basename(run)} ${first}`);
}

if (process.env.SPEED) {
    const members = Number(process.env.SPEED);
    engine.open(`lab 1\nseed 1\nmembers ${members}\n`);
    engine.step(2000);
    const begin = performance.now();
    let steps = 0;
    while (performance.now() - begin < 3000) {
        if (steps % 10000 === 0) engine.act(`write ${1 + (steps / 10000) % members} k0`);
        steps += engine.step(1000);
    }
    console.log(`${members} members: ${Math.round(steps / (performance.now() - begin) * 1000)} events per second`);
}
