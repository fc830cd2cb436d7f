// Every call of node-etcd's own, against the servers at URLS; prints what each came to.
//
//     node scenario.js URL[,URL...]
//
// The output of two clusters that do the same is the same, if both start at the same index. With several members
// each call goes to the next one, and at the end the leader is killed under a client and a watcher.
'use strict';

const readline = require('readline');
const Etcd = require('node-etcd');

const URLS = process.argv[2].split(',');
const MEMBERS = URLS.map((url) => new Etcd(url));
const DEADLINE_MS = 20000;
let turn = 0;

function wait(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

async function until(what, condition) {
  const end = Date.now() + DEADLINE_MS;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`waited in vain until ${what}`);
    await wait(5);
  }
}

// A call with a callback as a promise of what the callback is given.
function given(start) {
  return new Promise((resolve) => start((error, body, headers) => resolve({ error, body, headers })));
}

// The next member, once it has applied what the others confirmed.
async function next() {
  const member = MEMBERS[turn++ % MEMBERS.length];
  await given((done) => member.get('none', { quorum: true }, done));
  return member;
}

// The body as it is, with times and the order of its nodes taken out; the headers by which clients go on.
function shown({ error, body, headers }) {
  const plain = (key, value) => {
    if (key === 'expiration') return 'TIME';
    if (key === 'nodes') return value.slice().sort((a, b) => (a.key < b.key ? -1 : 1));
    return value;
  };
  const names = ['content-type', 'x-etcd-index'];
  const kept = headers ? names.map((name) => `${name}=${headers[name]}`).join(' ') : 'no headers';
  if (!error) return `${JSON.stringify(body, plain)} ${kept}`;
  const causes = (error.errors || []).map((each) => each.httpstatus || each.httperror.code);
  return `Error ${error.message} ${JSON.stringify(error.error, plain)} ${causes} ${kept}`;
}

// Calls a method of the next member and prints what it came to.
async function call(method, ...args) {
  const member = await next();
  const what = `${method} ${JSON.stringify(args)}`; // the library adds to the options it is given
  const result = await given((done) => member[method](...args, done));
  console.log(`${what}: ${shown(result)}`);
  return result.body;
}

async function writingAndReading() {
  await call('set', 'n/a', 'one');
  await call('set', '/n/a', 'two');
  await call('get', 'n/a');
  await call('get', '/n/a/');
  await call('get', 'n/none');
  await call('get', 'n/a', { quorum: true });
  await call('set', 'n/t', 'soon', { ttl: 1000 });
  const apple = `n/${encodeURIComponent('사과')}`; // the library leaves the escaping of a key to its caller
  await call('set', apple, '값 & <b> + % = ;');
  await call('get', apple);
  await call('set', 'n/empty', '');
  await call('get', 'n/empty');
  await call('set', 'n/no value', null);
  await call('set', 'n/long', 'x'.repeat(5000), { noValueOnSuccess: true });
  await call('set', 'n/new', '1', { prevExist: false });
  await call('set', 'n/new', '2', { prevExist: false });
  await call('set', 'n/new', '3', { prevExist: true });
  await call('set', 'n/none', '1', { prevExist: true });
  await call('set', 'n/a/below', '1');
  await call('set', 'n/t', null, { refresh: true, ttl: 2000, prevExist: true });
  await call('get', 'n/t');
  await call('set', 'n/t', '1', { ttl: 'soon' });
  await call('get', 'n/a', { recursive: 'maybe' });
  await call('set', '/', '1');
}

async function directories() {
  await call('mkdir', 'n/d');
  await call('mkdir', 'n/d');
  await call('mkdir', 'n/d/e', { ttl: 1000 });
  await call('mkdir', 'n/new');
  await call('set', 'n/d', '1');
  await call('create', 'n/queue', 'first');
  await call('post', 'n/queue', 'second', { ttl: 1000 });
  await call('create', 'n/a', 'below a file');
  await call('get', 'n/queue', { sorted: true });
  await call('get', 'n', { recursive: true, sorted: true });
  await call('get', 'n', { recursive: true });
  await call('rmdir', 'n/d');
  await call('rmdir', 'n/d/e');
  await call('rmdir', 'n/d');
  await call('rmdir', 'n/d');
  await call('rmdir', 'n/queue', { recursive: true });
}

async function comparing() {
  await call('compareAndSwap', 'n/a', 'swapped', 'two');
  await call('testAndSet', 'n/a', 'never', 'wrong');
  await call('testAndSet', 'n/none', 'never', 'wrong');
  await call('testAndSet', 'n/a', 'again', 'swapped', { ttl: 1000 });
  const { node } = await call('get', 'n/a');
  await call('set', 'n/a', 'at its index', { prevIndex: node.modifiedIndex });
  await call('set', 'n/a', 'at an old index', { prevIndex: node.modifiedIndex });
  await call('set', 'n/a', 'without an index', { prevIndex: 0 });
  await call('compareAndDelete', 'n/a', 'wrong');
  await call('testAndDelete', 'n/a', 'without an index');
  await call('compareAndDelete', 'n/a', 'gone');
  await call('testAndSet', 'n/empty', 'x', '');
}

async function deleting() {
  await call('del', 'n/none');
  await call('del', 'n/no value');
  await call('delete', 'n/long');
  await call('mkdir', 'n/d/e/f');
  await call('del', 'n/d');
  await call('del', 'n/d', { dir: true });
  await call('del', 'n/d', { recursive: true });
  await call('del', '/', { recursive: true });
}

// The same calls without callbacks: the library turns its event loop until the answer is there.
async function synchronously() {
  const sync = (what, result) => console.log(`${what}: ${shown({ error: result.err, ...result })}`);
  sync('setSync', (await next()).setSync('n/s', 'one'));
  sync('setSync with options', (await next()).setSync('n/s', 'two', { prevValue: 'one', maxRetries: 1 }));
  sync('getSync', (await next()).getSync('n/s'));
  sync('getSync of nothing', (await next()).getSync('n/none'));
  sync('delSync', (await next()).delSync('n/s'));
  sync('mkdirSync', (await next()).mkdirSync('n/sd'));
  sync('rmdirSync', (await next()).rmdirSync('n/sd'));
}

async function rawRequests() {
  await call('raw', 'PUT', 'v2/keys/n/raw', 'value', {});
  await call('raw', 'GET', 'v2/keys/n/raw', null, { quorum: true });
  await call('raw', 'GET', 'v2/keys/n/../n/raw', null, {});
  await call('raw', 'GET', 'v2/keys//n//raw', null, {});
  await call('raw', 'PATCH', 'v2/keys/n/raw', null, {});
  await call('raw', 'OPTIONS', 'v2/keys/n/raw', null, {});
  await call('raw', 'DELETE', 'v2/keys/n/raw', null, {});
  await call('raw', 'GET', 'v2/nothing', null, {});
  await call('raw', 'GET', 'health', null, {});
}

async function watchers() {
  const open = await Promise.all(MEMBERS.map((member) => given((done) => member.raw('GET', 'v2/stats/store', null, {}, done))));
  return open.reduce((sum, { body }) => sum + body.watchers, 0);
}

async function watching() {
  const { node } = await call('set', 'w/a', '0');
  for (let number = 1; number <= 4; number++) await call('set', 'w/a', String(number));
  await call('watchIndex', 'w/a', node.modifiedIndex + 1);
  await call('watchIndex', 'w', node.modifiedIndex + 3, { recursive: true });

  let member = await next();
  const waiting = given((done) => member.watch('w/once', done));
  await until('it watches', async () => (await watchers()) === 1);
  await call('set', 'w/other', '1');
  await call('set', 'w/once', 'now');
  console.log(`watch: ${shown(await waiting)}`);

  member = await next();
  const cancelled = member.watch('w/once', () => console.log('a watch that was cancelled is called back'));
  await until('it watches', async () => (await watchers()) === 1);
  cancelled.cancel();
  await until('the server has noticed', async () => (await watchers()) === 0);
  console.log('cancelled:', cancelled.isAborted(), cancelled.wasAborted());

  const impatient = new Etcd(URLS[0], { timeout: 200 });
  const late = await given((done) => impatient.watch('w/once', { maxRetries: 0 }, done));
  console.log(`a watch with a timeout: ${late.error.message} ${late.error.errors.map((each) => each.httperror.code)}`);
  await until('the server has noticed', async () => (await watchers()) === 0);
}

// A watcher, its events by name, in their order.
function follow(client, key, index, options) {
  const seen = [];
  const watcher = client.watcher(key, index, options);
  for (const name of ['change', 'set', 'create', 'update', 'delete', 'expire', 'compareAndSwap', 'compareAndDelete']) {
    watcher.on(name, ({ action, node }) => seen.push(`${name === action ? '' : `${name}:`}${action} ${node.key}=${node.value}`));
  }
  watcher.on('resync', (error) => seen.push(`resync ${error.message} ${error.error.cause}`));
  watcher.on('error', (error) => seen.push(`error ${error.message}`));
  watcher.on('stop', (message) => seen.push(`stop ${message}`));
  return { watcher, seen };
}

async function following() {
  const { node } = await call('set', 'f/start', '0');
  const { watcher, seen } = follow(await next(), 'f', node.modifiedIndex + 1, { recursive: true });
  await call('set', 'f/a', '1');
  await call('set', 'f/a', '2', { prevExist: true });
  await call('testAndSet', 'f/a', '3', '2');
  await call('testAndDelete', 'f/a', '3');
  await call('set', 'f/b', '1');
  await call('del', 'f/b');
  await call('create', 'f/queue', 'x');
  await call('mkdir', 'f/d');
  // A hidden key is not reported to a watcher above it, unless the watcher finds it in the history. So the watcher waits
  // for the next event before the hidden key is written.
  await until('it watches again', async () => seen.includes('set /f/d=undefined') && (await watchers()) === 1);
  await call('set', 'f/_hidden', '1');
  await call('set', 'f/fades', '1', { ttl: 1 });
  await until('it has expired', () => seen.some((line) => line.startsWith('expire')));
  await until('it watches again', async () => (await watchers()) === 1);
  watcher.stop();
  console.log('followed:', seen);
  await until('the server has noticed', async () => (await watchers()) === 0);
}

// More than the 1000 events that are kept: the watcher starts again at the index of the error.
async function fallingBehind() {
  const { node } = await call('set', 'b/a', 'old');
  const member = await next();
  for (let number = 0; number < 1001; number += 13) {
    const some = Array.from({ length: 13 }, (_, offset) => given((done) => member.set('b/other', `${number + offset}`, done)));
    await Promise.all(some);
  }
  await call('watchIndex', 'b/a', node.modifiedIndex);
  const { watcher, seen } = follow(await next(), 'b/a', node.modifiedIndex, {});
  await until('it has started again', async () => seen.length === 1 && (await watchers()) === 1);
  await call('set', 'b/a', 'new');
  await until('it has seen it', () => seen.length === 3);
  await until('it watches again', async () => (await watchers()) === 1);
  watcher.stop();
  console.log('followed from too far behind:', seen);
  await until('the server has noticed', async () => (await watchers()) === 0);
}

async function askingAboutTheCluster() {
  const keys = (value) => (value && typeof value === 'object' ? Object.keys(value).filter((key) => !/Rate$/.test(key)) : value);
  console.log('hosts:', new Etcd(URLS.map((url) => url.replace('http://', ''))).getHosts().length);
  await call('machines'); // paths of etcd 0.x
  await call('leader');
  const versions = await given((done) => MEMBERS[0].version(done));
  console.log('version:', keys(versions.body), versions.headers['content-type']);
  const self = await given((done) => MEMBERS[0].selfStats(done));
  console.log('selfStats:', keys(self.body), self.headers['content-type']);
  const stats = await Promise.all(MEMBERS.map((member) => given((done) => member.leaderStats(done))));
  console.log('leaderStats:', stats.map(({ body }) => JSON.stringify([keys(body), body.message])).sort());
}

async function notConnecting() {
  const lost = new Etcd(['127.0.0.1:1', 'localhost:1']);
  const none = await given((done) => lost.get('a', { maxRetries: 1 }, done));
  console.log(`no server: ${shown(none)} retries=${none.error.retries}`);
  const some = new Etcd(['127.0.0.1:1', URLS[0]]);
  const found = await given((done) => some.get('w/once', done));
  console.log(`one server of two: ${shown(found)}`);
}

// The client takes members by chance: a watcher whose request is with the wanted one.
async function followByWayOf(wanted, client, key, index) {
  for (;;) {
    const following = follow(client, key, index, { recursive: true });
    await until('it watches', async () => (await watchers()) === 1);
    const { body } = await given((done) => MEMBERS[wanted].raw('GET', 'v2/stats/store', null, {}, done));
    if (body.watchers === 1) return following;
    following.watcher.stop();
    await until('the server has noticed', async () => (await watchers()) === 0);
  }
}

async function losingTheLeader() {
  const client = new Etcd(URLS);
  const leaders = await Promise.all(MEMBERS.map((member) => given((done) => member.leaderStats(done))));
  const leader = leaders.findIndex(({ body }) => body.leader);
  const { node } = await call('set', 'l/start', '1');
  const { watcher, seen } = await followByWayOf(leader, client, 'l', node.modifiedIndex + 1);
  await call('set', 'l/before', '1');
  await until('it has seen it', () => seen.length === 2);

  const input = readline.createInterface({ input: process.stdin });
  console.log('kill the leader');
  await new Promise((resolve) => input.once('line', resolve));
  input.close();
  MEMBERS.splice(leader, 1);
  const living = async (method, ...args) => {
    const what = `${method} ${JSON.stringify(args)}`;
    const result = await given((done) => client[method](...args, done));
    console.log(`${what}, the leader gone: ${shown(result)}`);
  };
  await living('set', 'l/after', '1');
  await living('get', 'l/after', { quorum: true });
  await living('testAndSet', 'l/after', '2', '1');
  for (let number = 0; number < 10; number++) await living('set', `l/${number % 3}`, `${number}`);
  await living('create', 'l/queue', 'x');
  await living('del', 'l/after');
  await living('set', 'l/end', '1');
  await until('the watcher sees the end', () => seen.some((line) => line.includes('/l/end')));
  watcher.stop();
  console.log('followed across it:', seen);
}

async function main() {
  await writingAndReading();
  await directories();
  await comparing();
  await deleting();
  await synchronously();
  await rawRequests();
  await watching();
  await following();
  await fallingBehind();
  await askingAboutTheCluster();
  await notConnecting();
  if (URLS.length > 1) await losingTheLeader();
  process.exit(0); // a stopped watcher may have a retry left that it would wait for
}

main().catch((error) => {
  console.log(error.stack);
  process.exit(1);
});
