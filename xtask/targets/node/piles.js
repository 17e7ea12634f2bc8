// Threads that pile up, memory that grows, and a healthy twin of both, on Node.
//
//   leak      two workers a second wait for a word that nobody changes
//   grow      2.5 MiB a second are remembered
//   healthy   a pool of 6 workers that answer messages; a cache that is full
//
// At most 80 workers are started.
'use strict';
const { Worker, isMainThread, parentPort, workerData } = require('node:worker_threads');

const everything = [];

function awaitShipping(word) {
    Atomics.wait(word, 0, 0);
}

function remember() {
    everything.push(Buffer.alloc(256 << 10, 'r'));
}

if (!isMainThread) {
    if (workerData.word) awaitShipping(workerData.word);
    else parentPort.on('message', (message) => parentPort.postMessage(message + 1));
} else {
    const mode = process.argv[2] || '';
    const word = new Int32Array(new SharedArrayBuffer(4));
    const pool = [];
    const start = (data) => new Worker(__filename, { workerData: data });
    if (mode === 'healthy') for (let i = 0; i < 6; i++) pool.push(start({}));
    let turn = 0;
    setInterval(() => {
        turn += 1;
        if (mode === 'leak' && turn % 5 === 0 && turn <= 400) start({ word });
        else if (mode === 'grow' && turn <= 400) remember();
        else if (mode === 'healthy') {
            pool[turn % pool.length].postMessage(turn);
            everything[turn % 16] = Buffer.alloc(16 << 10, 'h');
        }
    }, 100);
    console.log('ready');
}
