// Clicks through the dashboard of a live study as a person would, in Debian's Chromium.
// Usage: node browser/click-through.mjs ADDRESS STUDY CHROMIUM SCREENSHOTS
// Ends with a message and status 1 at the first thing that is not as it should be.
import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const [address, study, executablePath, folder] = process.argv.slice(2);
assert(address && study && executablePath && folder, 'four arguments are needed');
await mkdir(folder, { recursive: true });

const browser = await chromium.launch({
  executablePath,
  // As root, as in many containers, Chromium runs only without its sandbox; the others keep it
  // from asking the network for things of its own.
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});

const problems = [];

/** A fresh page that collects whatever goes wrong on it. */
async function open(colorScheme, width) {
  const context = await browser.newContext({ colorScheme, viewport: { width, height: 900 } });
  const page = await context.newPage();
  page.on('console', (message) => {
    if (message.type() === 'error') problems.push(`console: ${message.text()}`);
  });
  page.on('pageerror', (error) => problems.push(`page: ${error.message}`));
  page.on('response', (response) => {
    if (response.status() >= 400) problems.push(`${response.status()} for ${response.url()}`);
  });
  return page;
}

/** Nothing may stick out to the right: a page that scrolls sideways is broken. */
async function fitsItsWidth(page, what) {
  const { wide, seen } = await page.evaluate(() => ({
    wide: document.documentElement.scrollWidth,
    seen: document.documentElement.clientWidth,
  }));
  assert(wide <= seen + 1, `${what} is ${wide} wide in a window of ${seen}`);
}

async function shot(page, name) {
  await page.screenshot({ path: join(folder, `${name}.png`), fullPage: true });
}

/** From the list of studies to a run and to the workers, by clicking. */
async function walk(page, name) {
  await page.goto(address);
  await page.getByRole('heading', { name: 'Studies' }).waitFor();
  await page.getByText('live', { exact: true }).waitFor();
  await fitsItsWidth(page, 'the list of studies');
  await shot(page, `${name}-studies`);

  await page.getByRole('link', { name: study, exact: true }).click();
  await page.getByRole('heading', { name: study, level: 1 }).waitFor();
  // The study is live: wait for its first measured point, then for a curve.
  await page.locator('.plot svg [aria-label="dot"] > *').first().waitFor({ timeout: 60_000 });
  await page.locator('.chart canvas').first().waitFor();
  await page.getByLabel('Horizontal axis').selectOption('flops');
  await page.getByRole('button', { name: 'log y' }).click();
  await page.locator('.chart canvas').first().waitFor();
  await fitsItsWidth(page, 'the study');
  await shot(page, `${name}-study`);

  // Whatever happens to the runs meanwhile, the table follows without a reload.
  const rows = page.locator('tbody tr', { has: page.locator('a[href^="/runs/r_"]') });
  assert((await rows.count()) > 0, 'the study shows no runs');
  await page.getByRole('button', { name: 'Val. loss' }).click();
  await rows.first().locator('a[href^="/runs/r_"]').click();
  await page.getByRole('heading', { name: 'Attempts' }).waitFor();
  await page.getByRole('heading', { name: 'Configuration' }).waitFor();
  await page.locator('.chart canvas').first().waitFor({ timeout: 30_000 });
  assert.match(page.url(), /\/runs\/r_[0-9a-f]+$/);
  await fitsItsWidth(page, 'the run');
  await shot(page, `${name}-run`);

  await page.getByRole('link', { name: 'Workers' }).click();
  await page.getByRole('heading', { name: 'Workers', level: 1 }).waitFor();
  await page.locator('section.card').first().waitFor();
  await fitsItsWidth(page, 'the workers');
  await shot(page, `${name}-workers`);

  await page.goBack();
  await page.getByRole('heading', { name: 'Attempts' }).waitFor();
  await page.goto(`${address}/studies/no-such-study`);
  await page.getByRole('alert').first().waitFor();
}

try {
  for (const [scheme, width] of [['light', 1280], ['dark', 1280], ['light', 390], ['dark', 390]]) {
    const page = await open(scheme, width);
    await walk(page, `${scheme}-${width}`);
    await page.context().close();
  }
  // The one address that does not exist was asked for on purpose.
  const real = problems.filter((problem) => !problem.includes('no-such-study') && !problem.includes('status of 404'));
  assert.deepEqual(real, []);
  console.log('the dashboard was clicked through');
} finally {
  await browser.close();
}
