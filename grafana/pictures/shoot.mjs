// Draws dashboards in headless Chromium: one browser for as many orders as come in, a line of JSON each. It answers with
// a line of JSON for each shot, which says what became of the panels, and writes a PNG where the shot names a file.
//
//   node shoot.mjs /usr/bin/chromium
//   {"page": "http://127.0.0.1:3030", "query": "from=..&to=..", "shots": [{"uid": "poolscope-fleet", "file": "fleet.png"}]}
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';

const WIDTH = 1600;
const SCALE = 1;
const PATIENCE = 60_000;

const browser = await chromium.launch({
  executablePath: process.argv[2],
  args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--force-color-profile=srgb', '--font-render-hinting=none'],
});
try {
  for await (const line of createInterface({ input: process.stdin })) {
    const order = JSON.parse(line);
    for (const shot of order.shots) {
      console.log(JSON.stringify(await shoot(order, shot)));
    }
  }
} finally {
  await browser.close();
}

async function shoot(order, { uid, file, query }) {
  const page = await browser.newPage({ viewport: { width: WIDTH, height: 900 }, deviceScaleFactor: SCALE });
  const complaints = [];
  page.on('pageerror', (error) => complaints.push(error.message));
  page.on('console', (message) => message.type() === 'error' && complaints.push(message.text()));
  page.on('response', (answer) => answer.status() >= 400 && complaints.push(`${answer.status()} ${answer.url()}`));
  const address = `${order.page}/d/${uid}?${[order.query, query, 'refresh=off', 'timezone=utc'].filter(Boolean).join('&')}`;
  await page.goto(address);
  await page.waitForFunction(() => window.poolscopeOutcomes !== undefined, undefined, { timeout: PATIENCE });
  await page.evaluate(() => document.fonts.ready);
  const height = await page.evaluate(() => document.querySelector('main').getBoundingClientRect().height);
  await page.setViewportSize({ width: WIDTH, height: Math.ceil(height) });
  // Two frames after the last answer everything is painted.
  await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
  await page.waitForLoadState('networkidle');
  await page.waitForTimeout(300);
  const panels = await page.evaluate(outcomes);
  if (file) {
    await page.screenshot({ path: file, fullPage: true });
  }
  await page.close();
  return { uid, panels, complaints };
}

// In the page: the outcomes of the panels, with what is to be seen in each.
function outcomes() {
  return window.poolscopeOutcomes.map((outcome) => {
    const cell = document.querySelector(`[data-panel="${outcome.id}"]`);
    const painted = [...cell.querySelectorAll('canvas')].map((canvas) => {
      const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
      let count = 0;
      for (let at = 3; at < data.length; at += 4) {
        count += data[at] > 0 ? 1 : 0;
      }
      return count;
    });
    return { ...outcome, text: cell.innerText, painted };
  });
}
