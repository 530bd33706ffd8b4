// Draws the page from the document in #data.  Everything that came from the
// tenant is put in as text, never as HTML.
'use strict';

(function () {
  const data = JSON.parse(document.getElementById('data').textContent);
  const dark = window.matchMedia('(prefers-color-scheme: dark)');
  const print = window.matchMedia('print');
  const charts = {};
  let only = null; // the item type that is shown alone

  // Okabe and Ito's colours, which people with any colour vision tell apart.
  const colours = ['#0072b2', '#e69f00', '#009e73', '#cc79a7', '#56b4e9', '#d55e00', '#8a8f98'];
  const outcomes = [
    ['completed', 'Completed', '#009e73'], ['rejected', 'Denied', '#e69f00'],
    ['cancelled', 'Canceled', '#56b4e9'], ['terminated', 'Terminated', '#cc79a7'], ['failed', 'Failed', '#d55e00']];
  const typeNames = { ACCESS_PROFILE: 'Access profile', ROLE: 'Role', ENTITLEMENT: 'Entitlement', none: 'No type' };

  const number = (n, digits) => n === null || n === undefined ? '–' :
    Number(n).toLocaleString('en', { maximumFractionDigits: digits || 0 });
  const typeName = (t) => typeNames[t] || t;
  const unique = (list) => [...new Set(list)];
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const shorten = (text, n) => text.length > n ? text.slice(0, n - 1) + '…' : text;
  const duration = (s) => s === null || s === undefined ? 'never' : s < 120 ? number(s) + ' s' :
    s < 7200 ? number(s / 60) + ' min' : s < 172800 ? number(s / 3600) + ' h' : number(s / 86400) + ' days';

  function element(tag, text, className) {
    const e = document.createElement(tag);
    if (text !== undefined) e.textContent = text;
    if (className) e.className = className;
    return e;
  }

  function tile(figure, label, warn) {
    const t = element('div', undefined, 'tile' + (warn ? ' warn' : ''));
    t.append(element('b', figure), element('span', label));
    return t;
  }

  function drawTiles() {
    const t = data.tiles;
    document.getElementById('tiles').replaceChildren(
      tile(number(t.open), 'open, of ' + number(t.items) + ' items'),
      tile(t.oldest_days === null ? '–' : number(t.oldest_days) + ' days', 'the oldest of them'),
      tile(number(t.failed_week), 'failed in the last 7 days', t.failed_week > 0),
      tile(duration(t.lag_seconds), 'since the last pull', t.lag_seconds === null || t.lag_seconds > 3600));
  }

  // The chart of a name, or a word where there is nothing to draw.
  function draw(name, rows, option) {
    const box = document.getElementById(name);
    if (rows.length === 0) {
      box.replaceChildren(element('div', 'Nothing to show', 'none'));
      return null;
    }
    if (!charts[name]) charts[name] = echarts.init(box, null, { renderer: 'svg' });
    charts[name].setOption(Object.assign({
      animation: false, color: colours, textStyle: { color: css('--ink'), fontFamily: 'system-ui, sans-serif' },
      aria: { enabled: true }
    }, option), true);
    return charts[name];
  }

  const axisLook = () => ({
    axisLabel: { color: css('--faint'), hideOverlap: true }, axisLine: { lineStyle: { color: css('--line') } },
    splitLine: { lineStyle: { color: css('--line') } }, axisTick: { show: false }
  });
  const narrow = () => document.documentElement.clientWidth < 500;
  const legendLook = () => ({ top: 0, left: 0, textStyle: { color: css('--ink'), fontSize: narrow() ? 11 : 12 }, itemWidth: 12, itemHeight: 12, itemGap: narrow() ? 8 : 10 });
  const tip = (more) => Object.assign({
    trigger: 'axis', confine: true, renderMode: 'richText', backgroundColor: css('--card'), borderColor: css('--line'), textStyle: { color: css('--ink') }
  }, more);
  // room for half a date to the right of the last point
  const grid = (more) => Object.assign({ left: 8, right: 36, top: narrow() ? 56 : 40, bottom: 8, containLabel: true }, more);

  function drawOpenOnDay() {
    const rows = data.open_on_day;
    const last = rows.findIndex((r) => !r.estimated);
    draw('open_on_day', rows, {
      tooltip: tip({ formatter: (p) => p[0].axisValue + '\n' + number(p[0].value[1]) + ' open' + (rows[p[0].dataIndex].estimated ? ', by the items\' own dates' : '') }),
      grid: grid({ top: 12 }),
      xAxis: Object.assign(axisLook(), { type: 'category', data: rows.map((r) => r.day), boundaryGap: false }),
      yAxis: Object.assign(axisLook(), { type: 'value', minInterval: 1 }),
      series: [{
        name: 'Open', type: 'line', showSymbol: rows.length === 1, data: rows.map((r) => [r.day, r.open]), areaStyle: { opacity: 0.15 },
        markLine: last > 0 ? {
          silent: true, symbol: 'none', lineStyle: { color: css('--faint'), type: 'dashed' },
          label: { formatter: 'observed from here', color: css('--faint'), position: last > rows.length * 0.8 ? 'insideEndTop' : 'end' }, data: [{ xAxis: rows[last].day }]
        } : undefined
      }]
    });
  }

  function drawOpenByAge() {
    const rows = data.open_by_age;
    // as dashboard_data() calls them, and as they fit side by side
    const ages = ['under a day', '1 to 7 days', '7 to 30 days', '30 to 90 days', 'over 90 days'];
    const labels = ['< 1', '1–7', '7–30', '30–90', '> 90'].map((d) => d + (narrow() ? ' d' : d === '< 1' ? ' day' : ' days'));
    const types = unique(rows.map((r) => r.item_type));
    const chart = draw('open_by_age', rows, {
      tooltip: tip({ axisPointer: { type: 'shadow' } }), legend: legendLook(), grid: grid(),
      xAxis: Object.assign(axisLook(), { type: 'category', data: labels, axisLabel: { color: css('--faint'), interval: 0, fontSize: 11 } }),
      yAxis: Object.assign(axisLook(), { type: 'value', minInterval: 1 }),
      series: types.map((t) => ({
        name: typeName(t), id: t, type: 'bar', stack: 'open', barMaxWidth: 64, cursor: 'pointer',
        itemStyle: { opacity: only === null || only === t ? 1 : 0.15 },
        data: ages.map((a) => (rows.find((r) => r.age === a && r.item_type === t) || { items: 0 }).items)
      }))
    });
    if (chart) {
      chart.off('click');
      chart.on('click', (e) => show(only === e.seriesId ? null : e.seriesId));
    }
  }

  // As wide as the browser will draw it; ECharts measures some letters too narrow.
  const pen = document.createElement('canvas').getContext('2d');
  function widthOf(text) {
    pen.font = '11px system-ui, sans-serif';
    return pen.measureText(text).width;
  }

  function fit(text, width) {
    let n = text.length;
    while (n > 1 && widthOf(shorten(text, n)) > width) n--;
    return shorten(text, n);
  }

  function drawBacklog() {
    const rows = data.backlog.slice().reverse();
    const names = rows.map((r) => fit(r.approver, narrow() ? 110 : 150));
    draw('backlog', rows, {
      tooltip: tip({
        axisPointer: { type: 'shadow' }, formatter: (p) => {
          const r = rows[p[0].dataIndex];
          return r.approver + '\n' + number(r.waiting) + ' waiting, the oldest for ' + number(r.oldest_days) + ' days' +
            (r.forwarded ? '\n' + number(r.forwarded) + ' forwarded' : '');
        }
      }),
      grid: grid({ top: 4, bottom: 28, left: Math.max(0, ...names.map(widthOf)) + 14, containLabel: false }),
      xAxis: Object.assign(axisLook(), { type: 'value', minInterval: 1 }),
      yAxis: Object.assign(axisLook(), { type: 'category', data: rows.map((r, i) => i), axisLabel: { color: css('--faint'), formatter: (i) => names[i], interval: 0, fontSize: 11 } }),
      series: [{ name: 'Waiting', type: 'bar', barMaxWidth: 16, data: rows.map((r) => r.waiting) }]
    });
    document.getElementById('approvers').textContent = data.approvers > rows.length ? rows.length + ' of ' + number(data.approvers) + ' approvers' : '';
  }

  function drawLatency() {
    const rows = data.latency;
    draw('latency', rows, {
      tooltip: tip({ valueFormatter: (v) => number(v, 1) + ' h' }), legend: legendLook(), grid: grid(),
      xAxis: Object.assign(axisLook(), { type: 'category', data: rows.map((r) => r.week), boundaryGap: rows.length === 1 }),
      yAxis: Object.assign(axisLook(), { type: 'value' }),
      series: [['Median', 'median_hours'], ['9 of 10 within', 'p90_hours']].map((s) => ({
        name: s[0], type: 'line', symbolSize: 5, data: rows.map((r) => r[s[1]])
      }))
    });
  }

  function drawOutcomes() {
    const rows = data.outcomes;
    draw('outcomes', rows, {
      tooltip: tip({ axisPointer: { type: 'shadow' } }), legend: legendLook(), grid: grid(),
      xAxis: Object.assign(axisLook(), { type: 'category', data: rows.map((r) => r.week) }),
      yAxis: Object.assign(axisLook(), { type: 'value', minInterval: 1 }),
      series: outcomes.map((o) => ({ name: o[1], type: 'bar', stack: 'ended', barMaxWidth: 40, color: o[2], data: rows.map((r) => r[o[0]]) }))
    });
  }

  // columns: [title, value of a row, class]
  function drawTable(name, rows, columns) {
    const box = document.getElementById(name);
    if (rows.length === 0) {
      box.replaceChildren(element('div', 'Nothing to show', 'none'));
      return;
    }
    const table = element('table');
    const head = element('tr');
    columns.forEach((c) => head.append(element('th', c[0], c[2])));
    table.append(head);
    rows.forEach((r) => {
      const line = element('tr');
      columns.forEach((c) => line.append(element('td', c[1](r), c[2])));
      table.append(line);
    });
    box.replaceChildren(table);
  }

  // How much of it is shown, where that is not all.
  function note(name, shown, total) {
    if (total > shown) document.getElementById(name).append(element('p', number(shown) + ' of ' + number(total), 'note'));
  }

  function drawTables() {
    drawTable('failures', data.failures, [
      ['Items', (r) => number(r.items), 'number'], ['Sources', (r) => r.source_names || '–'],
      ['Error', (r) => shorten(r.error_text || 'The tenant says nothing', 300)], ['Last', (r) => r.last_at ? r.last_at.slice(0, 10) : '–', 'short']]);
    // up to 50 of each type are in the data, of all or of one
    const stuck = data.stuck.filter((r) => only === null || (r.item_type || 'none') === only);
    const total = Object.values(Object.fromEntries(stuck.map((r) => [r.item_type, r.of_type]))).reduce((a, n) => a + n, 0);
    drawTable('stuck', stuck.slice(0, 50), [
      ['Days', (r) => number(r.executing_days), 'number'], ['Item', (r) => r.item_name || '–'], ['Type', (r) => typeName(r.item_type || 'none'), 'short'],
      ['For', (r) => r.requested_for_name || '–'], ['Phase', (r) => (r.phase || '–').replace(/_PHASE$/, '').toLowerCase(), 'short'], ['Advice', (r) => r.advice || '–', 'short'],
      ['Request', (r) => r.access_request_id || '–']]);
    note('stuck', 50, total);
    note('failures', data.failures.length, data.kinds_of_failure);
  }

  function show(type) {
    only = type;
    const filter = document.getElementById('filter');
    filter.hidden = type === null;
    filter.querySelector('span').textContent = type === null ? '' : 'Open by age, and what is stuck: only ' + typeName(type);
    drawOpenByAge();
    drawTables();
  }

  function drawAll() {
    drawTiles();
    drawOpenOnDay();
    drawOpenByAge();
    drawBacklog();
    drawLatency();
    drawOutcomes();
    drawTables();
  }

  document.getElementById('about').textContent = (data.servers.length ? data.servers.join(', ') + ' · ' : '') +
    'as of ' + data.generated_at.replace(/T(\d\d:\d\d)[^+-]*(.*)$/, ' $1 (UTC$2)');
  document.getElementById('empty').hidden = data.tiles.items > 0;
  document.querySelector('#filter button').addEventListener('click', () => show(null));
  dark.addEventListener('change', drawAll);
  print.addEventListener('change', drawAll);
  new ResizeObserver(() => Object.values(charts).forEach((c) => c.resize())).observe(document.querySelector('main'));
  drawAll();
  // for who tests it
  document.documentElement.dataset.drawn = Object.keys(charts).length;
})();
