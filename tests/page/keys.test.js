// The view "Keys".

const assert = require("node:assert/strict");
const fs = require("node:fs");
const { after, before, test } = require("node:test");
const { Cluster, closeBrowser, open, picture, put, putMany, status, until } = require("./harness.js");

const MANY = Number(process.env.PAGE_KEYS ?? 100000);

let cluster;
let url;

before(async () => {
  cluster = await Cluster.start(1);
  url = cluster.urls[0];
});
after(async () => {
  await closeBrowser();
  await cluster?.stop();
});

const valueOf = async (key) => (await (await fetch(`${url}/v2/keys${key}`)).json()).node?.value;
const row = (page, name) => page.locator(".row", { has: page.locator(`.name:text-is("${name}")`) });
const button = (page, name) => page.getByRole("button", { name, exact: true });

test("a value is edited, and a change by somebody else is shown and not overwritten", async () => {
  await put(url, "/app/config", { value: "one\ntwo\nthree" });
  const page = await open(`${url}/#keys/app/config`, { expected: [status(412)] });
  await page.locator("pre.value").waitFor();
  await button(page, "Edit").click();
  await page.locator("textarea").fill("one\n2\nthree");
  await button(page, "Review").click();
  assert.equal(await page.locator(".diff .removed").textContent(), "-two");
  assert.equal(await page.locator(".diff .added").textContent(), "+2");
  await button(page, "Save").click();
  await until("the saved value", async () => (await valueOf("/app/config")) === "one\n2\nthree");
  await button(page, "Edit").click();
  await page.locator("textarea").fill("mine");
  await put(url, "/app/config", { value: "theirs" });
  await button(page, "Review").click();
  await button(page, "Save").click();
  await page.locator(".conflict").waitFor();
  assert.match(await page.locator(".conflict").textContent(), /Nothing was saved/);
  await picture(page, "keys-conflict-light");
  assert.equal(await valueOf("/app/config"), "theirs");
  await button(page, "Edit on top of theirs").click();
  assert.equal(await page.locator("textarea").inputValue(), "mine");
  await button(page, "Review").click();
  await button(page, "Save").click();
  await until("the value on top", async () => (await valueOf("/app/config")) === "mine");
  assert.deepEqual(page.complaints, []);
});

test("a deletion is undone, and an earlier value is restored", async () => {
  await put(url, "/undo/a", { value: "first" });
  await put(url, "/undo/a", { value: "second" });
  await put(url, "/undo/long", { value: "x".repeat(9000) });
  const page = await open(`${url}/#keys/undo/a`, { dark: true, expected: [status(404)] });
  await button(page, "Delete").click();
  await page.locator("dialog").getByRole("button", { name: "Delete" }).click();
  await until("the deletion", async () => (await valueOf("/undo/a")) === undefined);
  await page.locator(".changes").getByRole("button", { name: "Undo" }).first().click();
  await until("the undone deletion", async () => (await valueOf("/undo/a")) === "second");
  await until("the value in the page", async () => (await page.locator("pre.value").textContent()) === "second");
  await page.locator(".changes li", { hasText: "first" }).getByRole("button", { name: "Restore" }).first().click();
  await until("the restored value", async () => (await valueOf("/undo/a")) === "first");
  await put(url, "/undo/long", {}, "DELETE");
  await button(page, "Deleted keys").click();
  await page.locator(".changes li", { hasText: "/undo/long" }).getByRole("button", { name: "Undo" }).click();
  await until("the undone deletion of a long value", async () => (await valueOf("/undo/long"))?.length === 9000);
  await picture(page, "keys-deleted-dark");
  assert.deepEqual(page.complaints, []);
});

test("a deleted directory is undone with the keys that the history holds", async () => {
  await put(url, "/dir", { dir: "true" });
  await put(url, "/dir/a", { value: "old" });
  await put(url, "/dir/a", { value: "new" });
  await put(url, "/dir/long", { value: "y".repeat(9000) });
  await put(url, "/dir/gone", { value: "v" });
  await put(url, "/dir/gone", {}, "DELETE");
  await put(url, "/dir/sub/x", { value: "earlier" });
  await put(url, "/dir/sub", { recursive: "true" }, "DELETE");
  await put(url, "/dir/sub/y", { value: "later" });
  await put(url, "/dir/empty", { dir: "true" });
  const page = await open(`${url}/#keys/dir`, { expected: [status(404), status(412)] });
  const dialog = page.locator("dialog[open]");
  await button(page, "Delete").click();
  await dialog.getByRole("button", { name: "Delete" }).click();
  await until("the deletion", async () => (await valueOf("/dir/a")) === undefined);
  await put(url, "/dir/a", { value: "newest" });
  await button(page, "Deleted keys").click();
  await page.locator(".changes li", { has: page.locator("strong", { hasText: /^\/dir$/ }) }).getByRole("button", { name: "Undo" }).first().click();
  await dialog.waitFor();
  assert.deepEqual(await dialog.locator("li").allTextContents(), ["/dir/a", "/dir/empty", "/dir/long", "/dir/sub/y"]);
  assert.match(await dialog.textContent(), /Restore 3 keys and 1 directory below \/dir\?.*all that was in it/);
  await dialog.getByRole("button", { name: "Restore" }).click();
  await until("the undone deletion", async () => (await valueOf("/dir/long"))?.length === 9000);
  await until("what was done", async () => /Restored 2 keys and 1 directory; 1 of the keys existed/.test(await page.locator(".note[role=status]").textContent()));
  const { node } = await (await fetch(`${url}/v2/keys/dir?recursive=true&sorted=true`)).json();
  const list = ({ key, dir, value, nodes = [] }) => [dir ? key : `${key}=${value.slice(0, 9)}`, ...nodes.flatMap(list)];
  assert.deepEqual(list(node), ["/dir", "/dir/a=newest", "/dir/empty", `/dir/long=${"y".repeat(9)}`, "/dir/sub", "/dir/sub/y=later"]);
  assert.deepEqual(page.complaints, []);
});

test("of a directory that the history holds in part, the page says so", async () => {
  await put(url, "/part/old", { value: "v" });
  await putMany(url, Array.from({ length: 1100 }, (_, at) => ["/busy", `value=${at}`]));
  await put(url, "/part/new", { value: "v" });
  await put(url, "/part", { recursive: "true" }, "DELETE");
  const page = await open(`${url}/#keys/part`, { expected: [status(404)] });
  await page.locator(".changes").getByRole("button", { name: "Undo" }).click();
  const dialog = page.locator("dialog[open]");
  await dialog.waitFor();
  assert.deepEqual(await dialog.locator("li").allTextContents(), ["/part/new"]);
  assert.match(await dialog.textContent(), /last written before that cannot be restored/);
  await dialog.getByRole("button", { name: "Restore" }).click();
  await until("the key in the history", async () => (await valueOf("/part/new")) === "v");
  assert.deepEqual(page.complaints, []);
});

test("keys and values are text, whatever they contain", async () => {
  const evil = "<img src=x onerror=alert(1)>";
  await put(url, `/evil/${encodeURIComponent(evil)}`, { value: `${evil}</pre><script>alert(2)</script>` });
  const page = await open(`${url}/#keys`);
  let alerts = 0;
  page.on("dialog", (dialog) => (alerts++, dialog.dismiss()));
  await row(page, "evil/").click();
  await row(page, evil).click();
  await until("the value", async () => (await page.locator("pre.value").textContent())?.includes("</script>"));
  assert.equal(await page.locator(".keys img, .keys script").count(), 0);
  assert.equal(alerts, 0);
  assert.deepEqual(page.complaints, []);
});

test("a key is created with a time to live, watched, and read only hides what writes", async () => {
  const page = await open(`${url}/#keys`);
  await button(page, "New key").click();
  await page.locator("dialog input[name=key]").fill("/new/käse 1");
  await page.locator("dialog textarea").fill('{"b":[1,{"c":12345678901234567890}],"a":"x: y"}');
  await page.locator("dialog input[name=ttl]").fill("5000");
  await button(page, "Create").click();
  await page.locator("pre.value").waitFor();
  await until("the time to live", async () => /^1 h/.test(await page.locator(".life").textContent()));
  await page.getByLabel("Show the value as").selectOption("JSON");
  assert.match(await page.locator("pre.value").textContent(), /\n {6}"c": 12345678901234567890\n/);
  await page.getByLabel("Show the value as").selectOption("YAML");
  assert.match(await page.locator("pre.value").textContent(), /^b:\n- 1\n- c: 12345678901234567890\na: "x: y"$/);
  await button(page, "Watch live").click();
  await until("an open watch", async () => {
    await put(url, "/new/k%C3%A4se%201", { value: "changed", ttl: 5000 });
    return page.locator(".events li", { hasText: "changed" }).count();
  });
  await until("the new value", async () => (await page.locator("pre.value").textContent()) === "changed");
  await picture(page, "keys-watch-light");
  await page.getByLabel("read only").check();
  for (const name of ["Edit", "Delete", "New key", "Import"]) assert.equal(await button(page, name).isVisible(), false, name);
  assert.equal(await button(page, "Watch live").or(button(page, "Stop watching")).isVisible(), true);
  await page.getByLabel("read only").uncheck();
  await button(page, "Edit").click();
  await page.getByLabel("read only").check();
  assert.equal(await button(page, "Review").isVisible(), false);
  await page.getByLabel("read only").uncheck();
  await button(page, "Review").click();
  await page.getByLabel("read only").check();
  assert.equal(await button(page, "Save").isVisible(), false);
  assert.deepEqual(page.complaints, []);
});

test("selected keys are exported, deleted and imported again", async () => {
  await put(url, "/many/a", { value: "1" });
  await put(url, "/many/b/c", { value: "ü\n2" });
  const page = await open(`${url}/#keys`);
  await row(page, "many/").click();
  await row(page, "a").locator("input").check();
  await row(page, "b/").locator("input").check();
  const [download] = await Promise.all([page.waitForEvent("download"), button(page, "Export").click()]);
  const file = await download.path();
  assert.equal(fs.readFileSync(file, "utf8"),
    '{"key":"/many/a","value":"1"}\n{"key":"/many/b","dir":true}\n{"key":"/many/b/c","value":"ü\\n2"}\n');
  await page.locator(".selection").getByRole("button", { name: "Delete" }).click();
  await page.locator("dialog").getByRole("button", { name: "Delete" }).click();
  await until("the deletion", async () => (await valueOf("/many/a")) === undefined && (await valueOf("/many/b/c")) === undefined);
  const [chooser] = await Promise.all([page.waitForEvent("filechooser"), button(page, "Import").click()]);
  await chooser.setFiles({ name: "keys.jsonl", mimeType: "application/x-ndjson", buffer: fs.readFileSync(file) });
  await button(page, "Keep").click();
  await until("the import", async () => (await valueOf("/many/b/c")) === "ü\n2" && (await valueOf("/many/a")) === "1");
  assert.deepEqual(page.complaints, []);
});

test("one of many keys is found by its beginning, and by keyboard", async () => {
  const began = Date.now();
  await putMany(url, Array.from({ length: MANY }, (_, at) => [`/big/key-${String(at).padStart(6, "0")}`, `value=${at}`]));
  console.log(`${MANY} keys were written in ${Date.now() - began} ms`);
  const page = await open(`${url}/#keys`);
  await row(page, "big/").click();
  await row(page, "key-000003").waitFor();
  const drawn = await page.locator(".row").count();
  assert.ok(drawn < 80, `${drawn} rows are in the document`);
  // The end of the list is reached page by page.
  await page.locator(".tree").press("End");
  await row(page, "key-000499").waitFor();
  const middle = String(Math.floor(MANY / 2)).padStart(6, "0");
  const asked = Date.now();
  await page.locator("#search").fill(`/big/key-${middle.slice(0, 5)}`);
  await row(page, `/big/key-${middle}`).waitFor();
  console.log(`the key was found ${Date.now() - asked} ms after the last letter was typed`);
  await page.locator(".tree").focus();
  await page.keyboard.press("Enter");
  await until("the value of the first found key", async () => (await page.locator("pre.value").count()) && (await page.locator("pre.value").textContent()) === String(Number(`${middle.slice(0, 5)}0`)));
  await picture(page, "keys-search-light");
  assert.deepEqual(page.complaints, []);
});

test("keys fit a phone, in the dark", async () => {
  await put(url, "/phone/key", { value: "v".repeat(300) });
  const page = await open(`${url}/#keys/phone/key`, { width: 390, height: 844, dark: true });
  await page.locator("pre.value").waitFor();
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(wide <= 0, `${wide} pixels are outside`);
  await picture(page, "keys-phone-dark");
  assert.deepEqual(page.complaints, []);
});

test("a member with users asks who is there, and a user sees what it may read", async () => {
  const own = await Cluster.start(1);
  try {
    const base = own.urls[0];
    const json = { "Content-Type": "application/json", Authorization: `Basic ${btoa("root:open")}` };
    const tell = (method, path, body) => fetch(`${base}/v2/auth${path}`, { method, headers: json, body: body && JSON.stringify(body) });
    await put(base, "/mine/a", { value: "readable" });
    await tell("PUT", "/users/root", { user: "root", password: "open" });
    await tell("PUT", "/roles/mine", { role: "mine", permissions: { kv: { read: ["/mine/*"], write: [] } } });
    await tell("PUT", "/users/ann", { user: "ann", password: "pässword", roles: ["mine"] });
    await tell("PUT", "/roles/guest", { role: "guest", permissions: { kv: { read: [], write: [] } } });
    assert.equal((await tell("PUT", "/enable")).status, 200);
    const page = await open(`${base}/#keys`, { expected: [status(401)] });
    const dialog = page.locator("dialog[open]");
    await dialog.waitFor();
    await picture(page, "sign-in-light");
    await dialog.locator("input[name=user]").fill("ann");
    await dialog.locator("input[name=password]").fill("pässword");
    await page.keyboard.press("Enter");
    await until("the sign-in", async () => /ann/.test(await page.locator("#sign-in").textContent()));
    await page.locator("#search").fill("/mine/");
    await row(page, "/mine/a").click();
    await until("the value", async () => (await page.locator("pre.value").textContent()) === "readable");
    await button(page, "Edit").click();
    await page.locator("textarea").fill("not mine");
    await button(page, "Review").click();
    await button(page, "Save").click();
    await until("the refusal", async () => /may not/.test(await page.locator(".note.failed").textContent()));
    const kept = await page.evaluate(() => JSON.stringify({ ...localStorage }) + JSON.stringify({ ...sessionStorage }) + document.cookie);
    assert.ok(!kept.includes("ann"), kept);
    assert.deepEqual(page.complaints, []);
  } finally {
    await own.stop();
  }
});
