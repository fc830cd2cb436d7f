// Undo of a removed directory. The history has one change for it, which does not list what was below. But it also has
// the changes of the keys below that came before, and these tell what the keys were.

const CHANGES_PER_REQUEST = 100;

/** The keys and directories below a directory before the change with this index, as far as the history knows them, by
 *  path. `isAll` tells whether it knows all: it reaches back to the creation of the directory. */
async function keysBefore(path, index) {
  const found = { keys: new Map(), gone: [], isAll: false, first: 0 };
  for (let before = index; before !== undefined && !found.isAll;) {
    const told = await getJson(`/edgetcd/history?key=${path}&recursive=true&limit=${CHANGES_PER_REQUEST}&before=${before}`);
    found.first = told.first;
    for (const change of told.changes) {
      const key = change.path ?? keyPath(change.key);
      // What is older was below an earlier directory of this name.
      if (key === path && (!change.after || !change.before)) found.isAll = true;
      if (found.isAll) break;
      if (key !== path) lookBack(found, key, change);
    }
    before = told.next;
  }
  for (const [key, node] of found.keys) if (!node) found.keys.delete(key);
  return found;
}

/** Takes a change that is older than those before. */
function lookBack({ keys, gone }, key, change) {
  if (gone.some((dir) => key.startsWith(`${dir}/`))) return;
  if (!keys.has(key)) keys.set(key, change.after && { ...change.after, index: change.index });
  // What is older below a directory that was removed or created here is not in it.
  const isDir = change.after?.dir || change.before?.dir;
  if (isDir && (!change.after || !change.before)) gone.push(key);
}

/** Asks, and writes what was below a removed directory. Keys that exist again are kept. */
async function restoreDirectory(frame, path, index) {
  try {
    const { keys, isAll, first } = await keysBefore(path, index);
    const name = pathText(path);
    const rest = isAll ? "This is all that was in it." : `The history reaches back to index ${first}. Keys that were last written before that cannot be restored.`;
    const sorted = [...keys].sort(([a], [b]) => (a < b ? -1 : 1));
    const list = h("ul", {}, sorted.slice(0, 12).map(([key]) => h("li", {}, pathText(key))), sorted.length > 12 && h("li", {}, `and ${sorted.length - 12} more`));
    const answer = await ask(sorted.length ? `Restore ${countsText(sorted)} below ${name}?` : `Nothing of ${name} is known`,
      [list, h("p", {}, rest, " Restored keys have no time to live.")],
      [{ label: "Cancel", value: null }, ...(sorted.length || isAll ? [{ label: "Restore", value: "yes", main: true }] : [])]);
    if (answer !== "yes") return;
    const kept = await writeAll([[path, { dir: true }], ...sorted]);
    const written = sorted.filter(([key]) => !kept.has(key));
    frame.say(`Restored ${countsText(written)}; ${kept.size} of the keys existed.`);
  } catch (error) {
    frame.fail(error);
  }
  frame.changed();
}

/** How many keys these are, and how many directories. */
function countsText(list) {
  const dirs = list.filter(([, node]) => node.dir).length;
  const text = (count, one, many) => `${count} ${count === 1 ? one : many}`;
  const parts = [text(list.length - dirs, "key", "keys"), dirs && text(dirs, "directory", "directories")];
  return parts.filter(Boolean).join(" and ");
}

/** Writes keys that do not exist. Returns the paths of those that did. */
async function writeAll(keys) {
  const kept = new Set();
  await together(keys, async ([key, node]) => {
    const value = node.dir || node.value !== undefined ? node.value : (await eventAt(key, node.index)).node.value;
    const form = { ...(node.dir ? { dir: "true" } : { value }), prevExist: "false" };
    await send("PUT", `/v2/keys${key}`, { form }).catch((error) => {
      // A directory exists as soon as a key below it does.
      if (error.status !== 412 && error.status !== 403) throw error;
      if (!node.dir) kept.add(key);
    });
  });
  return kept;
}

/** The change with this index, for values that the list of changes leaves out. */
async function eventAt(path, index) {
  const event = await getJson(`/v2/keys${path}?wait=true&waitIndex=${index}`);
  if (event.node.modifiedIndex !== index) throw new Error("the history does not contain this value any more");
  return event;
}
