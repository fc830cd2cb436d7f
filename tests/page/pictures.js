// The pictures of README. They are WebP because that is a third of PNG for such drawings.

const fs = require("node:fs");
const path = require("node:path");

const FOLDER = process.env.PICTURES;
const QUALITY = 88;

/** A reason not to take pictures now, for the option `skip` of a test. */
const skip = FOLDER ? false : "PICTURES names the folder for them: make pictures";

async function take(page, name) {
  const browser = await page.context().newCDPSession(page);
  const { data } = await browser.send("Page.captureScreenshot", { format: "webp", quality: QUALITY });
  fs.writeFileSync(path.join(FOLDER, `${name}.webp`), Buffer.from(data, "base64"));
}

module.exports = { skip, take };
