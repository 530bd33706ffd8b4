// Opens the page in a real browser: node test.mjs PAGE.html EMPTY.html HUGE.html FOLDER
// Prints "ok NAME" or "not ok NAME" a line and leaves screenshots in FOLDER.
// CHROMIUM names the browser, /usr/bin/chromium if it is not set.
import { chromium } from 'playwright-core';
import { pathToFileURL } from 'node:url';

const [full, empty, huge, folder] = process.argv.slice(2);
// Only a hang takes longer, in ms.
const patience = 300_000;
const browser = await chromium.launch({
  timeout: patience,
  executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
  args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-background-networking',
    '--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1']
});
let failures = 0;

function check(good, name, detail) {
  console.log((good ? 'ok ' : 'not ok ') + name);
  if (!good) {
    failures++;
    console.log('# ' + JSON.stringify(detail));
  }
}

// A page, with what it said and asked for.
async function open(file, options) {
  const context = await browser.newContext(Object.assign({ viewport: { width: 1280, height: 900 } }, options));
  context.setDefaultTimeout(patience);
  const page = await context.newPage();
  const said = [];
  const asked = [];

  page.on('console', (m) => { if (m.type() === 'error' || m.type() === 'warning') said.push(m.text()); });
  page.on('pageerror', (e) => said.push(String(e)));
  page.on('request', (r) => { if (!r.url().startsWith('file:') && !r.url().startsWith('data:')) asked.push(r.url()); });
  await page.goto(pathToFileURL(file).href);
  await page.waitForFunction(() => document.documentElement.dataset.drawn !== undefined);
  return { page, said, asked, context };
}

async function quiet(p, name) {
  check(p.said.length === 0, name + ': no error in the console', p.said);
  check(p.asked.length === 0, name + ': no request to the network', p.asked);
}

const names = ['open_on_day', 'open_by_age', 'backlog', 'latency', 'outcomes'];
const drawn = (page, name) => page.locator('#' + name + ' svg path').count();

// Texts of a chart's axes and legends that lie over each other.
const overlaps = (page) => page.evaluate((list) => list.flatMap((name) => {
  const boxes = [...document.querySelectorAll('#' + name + ' svg text')].filter((t) => t.textContent.trim() !== '')
    .map((t) => ({ text: t.textContent, box: t.getBoundingClientRect() }));
  return boxes.flatMap((a, i) => boxes.slice(i + 1).filter((b) =>
    Math.min(a.box.right, b.box.right) - Math.max(a.box.left, b.box.left) > 3 &&
    Math.min(a.box.bottom, b.box.bottom) - Math.max(a.box.top, b.box.top) > 3).map((b) => name + ': ' + a.text + ' / ' + b.text));
}), names);

// Texts that are cut off at the edge of their chart.
const cut = (page) => page.evaluate((list) => list.flatMap((name) => {
  const edge = document.querySelector('#' + name + ' svg').getBoundingClientRect();
  return [...document.querySelectorAll('#' + name + ' svg text')].filter((t) => {
    const box = t.getBoundingClientRect();
    return t.textContent.trim() !== '' && (box.left < edge.left - 1 || box.right > edge.right + 1 || box.bottom > edge.bottom + 1);
  }).map((t) => name + ': ' + t.textContent);
}), names);

const outside = (page) => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);

for (const scheme of ['light', 'dark']) {
  const p = await open(full, { colorScheme: scheme });
  for (const name of names) check(await drawn(p.page, name) > 3, `${scheme}: ${name} is drawn`, await drawn(p.page, name));
  check(await p.page.locator('.tile').count() === 4, `${scheme}: four tiles`);
  check(await p.page.locator('#failures tr').count() > 1, `${scheme}: failures are listed`);
  check(await p.page.locator('#stuck tr').count() > 1, `${scheme}: what is stuck is listed`);
  check((await overlaps(p.page)).length === 0, `${scheme}: no labels overlap`, await overlaps(p.page));
  check((await cut(p.page)).length === 0, `${scheme}: no label is cut off`, await cut(p.page));
  check(await outside(p.page) <= 0, `${scheme}: nothing sticks out`, await outside(p.page));
  await p.page.screenshot({ path: `${folder}/${scheme}.png`, fullPage: true });
  await quiet(p, scheme);
  await p.context.close();
}

// A click on a bar shows one type alone, a second shows all again.
{
  const p = await open(full);
  const types = () => p.page.locator('#stuck tr td:nth-child(3)').allTextContents();
  const before = new Set(await types());
  const bar = await p.page.evaluate(() => {
    const chart = echarts.getInstanceByDom(document.getElementById('open_by_age'));
    const option = chart.getOption();
    // the segment at the bottom of the tallest bar
    const i = option.series[0].data.indexOf(Math.max(...option.series[0].data));
    const at = chart.convertToPixel({ seriesIndex: 0 }, [i, option.series[0].data[i] / 2]);
    const box = document.getElementById('open_by_age').getBoundingClientRect();
    return { x: box.left + at[0], y: box.top + at[1] + window.scrollY, name: option.series[0].name };
  });
  await p.page.evaluate((y) => window.scrollTo(0, y - 300), bar.y);
  const scrolled = await p.page.evaluate(() => window.scrollY);
  await p.page.mouse.click(bar.x, bar.y - scrolled);
  await p.page.waitForTimeout(0);
  const after = new Set(await types());
  check(before.size > 1 && after.size === 1 && after.has(bar.name), 'a click filters', { bar, before: [...before], after: [...after] });
  check(await p.page.locator('#filter span').textContent() === 'Open by age, and what is stuck: only ' + bar.name, 'and says what by');
  await p.page.screenshot({ path: `${folder}/filtered.png`, fullPage: true });
  await p.page.locator('#filter button').click();
  check(new Set(await types()).size === before.size, 'and is taken back');
  check(await p.page.evaluate(() => window.injected === undefined && !document.body.innerHTML.includes('<img src="x"')), 'names are text');
  await quiet(p, 'clicks');
  await p.context.close();
}

// A phone, and paper.
{
  const p = await open(full, { viewport: { width: 390, height: 844 }, isMobile: true, deviceScaleFactor: 2 });
  check(await outside(p.page) <= 0, 'phone: nothing sticks out', await outside(p.page));
  check((await overlaps(p.page)).length === 0, 'phone: no labels overlap', await overlaps(p.page));
  check((await cut(p.page)).length === 0, 'phone: no label is cut off', await cut(p.page));
  check(await p.page.evaluate(() => [...document.querySelectorAll('main > .chart')].every((s) => s.getBoundingClientRect().width > 340)), 'phone: one column');
  await p.page.screenshot({ path: `${folder}/phone.png`, fullPage: true });
  await quiet(p, 'phone');
  await p.context.close();
  const print = await open(full, { colorScheme: 'dark' });
  await print.page.emulateMedia({ media: 'print', colorScheme: 'light' });
  check(await print.page.evaluate(() => getComputedStyle(document.body).backgroundColor) === 'rgb(255, 255, 255)', 'paper is white');
  await print.page.pdf({ path: `${folder}/print.pdf`, format: 'A4', printBackground: true });
  await quiet(print, 'print');
  await print.context.close();
}

// Very much: wide numbers, long lists.
for (const [name, width] of [['huge', 1280], ['huge on a phone', 390]]) {
  const p = await open(huge, { viewport: { width, height: 900 } });
  for (const chart of names) check(await drawn(p.page, chart) > 3, `${name}: ${chart} is drawn`, await drawn(p.page, chart));
  check((await overlaps(p.page)).length === 0, `${name}: no labels overlap`, await overlaps(p.page));
  check((await cut(p.page)).length === 0, `${name}: no label is cut off`, await cut(p.page));
  check(await outside(p.page) <= 0, `${name}: nothing sticks out`, await outside(p.page));
  await p.page.screenshot({ path: `${folder}/${name.replaceAll(' ', '-')}.png`, fullPage: true });
  await quiet(p, name);
  await p.context.close();
}

// Nothing.
{
  const p = await open(empty);
  check(await p.page.locator('#empty').isVisible(), 'empty: it says so');
  check(await p.page.locator('.none').count() === 7, 'empty: so does each part', await p.page.locator('.none').count());
  await p.page.screenshot({ path: `${folder}/empty.png`, fullPage: true });
  await quiet(p, 'empty');
  await p.context.close();
}

await browser.close();
process.exit(failures ? 1 : 0);
