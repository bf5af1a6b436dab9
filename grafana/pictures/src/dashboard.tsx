// One dashboard: its variables, its rows, its grid.
import { TimeRange, dateTime, rangeUtil } from '@grafana/data';
import { MultiSelect, Select, useTheme2 } from '@grafana/ui';
import { useCallback, useEffect, useMemo, useRef, useState } from 'react';
import { Dashboard, Outcome, Panel } from './model';
import { PanelView } from './panel';
import { ALL, Choice, Choices, choose } from './variables';

export interface Settings {
  scrapeSeconds: number;
  dashboards: Array<{ uid: string; title: string }>;
}

const GAP = 8;
const ROW = 30;
const RANGES = ['5m', '15m', '30m', '1h', '3h', '12h', '24h'];

declare global {
  interface Window {
    // Read by the program that takes the pictures.
    poolscopeOutcomes: Outcome[] | undefined;
  }
}

export function DashboardView({ dashboard, settings }: { dashboard: Dashboard; settings: Settings }) {
  const theme = useTheme2();
  const address = useMemo(() => new URLSearchParams(location.search), []);
  const width = useWidth();
  const [range, setRange] = useState(() => rangeOf(address, dashboard));
  const [choices, setChoices] = useState<Choices>();
  const [problem, setProblem] = useState<string>();
  const outcomes = useRef(new Map<number, Outcome>());
  const panels = dashboard.panels.filter((panel) => panel.type !== 'row');

  useEffect(() => {
    choose(dashboard, address, range).then(setChoices, (failure: Error) => setProblem(failure.message));
  }, [dashboard, address, range]);

  useEffect(() => {
    if (address.get('refresh') === 'off') {
      return undefined;
    }
    const timer = setInterval(() => setRange(rangeOf(address, dashboard)), rangeUtil.intervalToMs(dashboard.refresh));
    return () => clearInterval(timer);
  }, [address, dashboard]);

  const onOutcome = useCallback(
    (outcome: Outcome) => {
      outcomes.current.set(outcome.id, outcome);
      if (outcomes.current.size === panels.length) {
        window.poolscopeOutcomes = [...outcomes.current.values()];
      }
    },
    [panels.length]
  );

  const zone = address.get('timezone') ?? 'browser';
  const looked = choices && { choices, range, timeZone: zone, scrapeSeconds: settings.scrapeSeconds };
  const bottom = Math.max(...dashboard.panels.map(({ gridPos }) => gridPos.y + gridPos.h));
  return (
    <main style={{ background: theme.colors.background.canvas }}>
      <header>
        <nav>
          {settings.dashboards.map(({ uid, title }) => (
            <a key={uid} href={`/d/${uid}${location.search}`} className={uid === dashboard.uid ? 'here' : ''}>
              {title}
            </a>
          ))}
        </nav>
        <div className="filters">
          {choices && [...choices.values()].map((choice) => <Filter key={choice.variable.name} choice={choice} address={address} />)}
          <Ranges address={address} dashboard={dashboard} />
        </div>
      </header>
      {problem && <div className="nothing">{problem}</div>}
      <div className="grid" style={{ height: bottom * (ROW + GAP) }}>
        {looked &&
          dashboard.panels.map((panel) => (
            <div key={panel.id} className="cell" data-panel={panel.id} style={place(panel, width)}>
              {panel.type === 'row' ? (
                <h2>{panel.title}</h2>
              ) : (
                <PanelView panel={panel} {...looked} {...size(panel, width)} onOutcome={onOutcome} />
              )}
            </div>
          ))}
      </div>
      <footer>rendered with @grafana/ui</footer>
    </main>
  );
}

function Filter({ choice, address }: { choice: Choice; address: URLSearchParams }) {
  const { variable, values, chosen } = choice;
  const options = [{ label: 'All', value: ALL }, ...values.map((value) => ({ label: value, value }))];
  return (
    <label>
      <span>{variable.label ?? variable.name}</span>
      <MultiSelect
        options={options}
        value={chosen}
        width="auto"
        isSearchable={false}
        onChange={(picked) => {
          const last = picked[picked.length - 1]?.value;
          const kept = last === ALL || last === undefined ? [] : picked.map(({ value }) => value!).filter((value) => value !== ALL);
          go(address, `var-${variable.name}`, kept);
        }}
      />
    </label>
  );
}

function Ranges({ address, dashboard }: { address: URLSearchParams; dashboard: Dashboard }) {
  const from = address.get('from') ?? dashboard.time.from;
  const fixed = /^\d+$/.test(from);
  const options = RANGES.map((range) => ({ label: `last ${range}`, value: `now-${range}` }));
  return (
    <label>
      <span>Time</span>
      <Select
        options={fixed ? [{ label: 'fixed', value: from }, ...options] : options}
        value={from}
        width="auto"
        isSearchable={false}
        onChange={({ value }) => {
          address.delete('to');
          go(address, 'from', [value!]);
        }}
      />
    </label>
  );
}

function go(address: URLSearchParams, name: string, values: string[]) {
  address.delete(name);
  values.forEach((value) => address.append(name, value));
  location.search = address.toString();
}

function rangeOf(address: URLSearchParams, dashboard: Dashboard): TimeRange {
  const from = address.get('from') ?? dashboard.time.from;
  const to = address.get('to') ?? dashboard.time.to;
  if (/^\d+$/.test(from)) {
    const [start, end] = [dateTime(Number(from)), dateTime(Number(to))];
    return { from: start, to: end, raw: { from: start, to: end } };
  }
  return rangeUtil.convertRawToRange({ from, to });
}

function useWidth(): number {
  const [width, setWidth] = useState(document.documentElement.clientWidth);
  useEffect(() => {
    const measure = () => setWidth(document.documentElement.clientWidth);
    addEventListener('resize', measure);
    return () => removeEventListener('resize', measure);
  }, []);
  return width - 2 * GAP;
}

function size({ gridPos }: Panel, width: number) {
  return { width: Math.floor((gridPos.w * (width + GAP)) / 24) - GAP, height: gridPos.h * (ROW + GAP) - GAP };
}

function place(panel: Panel, width: number) {
  return { left: Math.floor((panel.gridPos.x * (width + GAP)) / 24), top: panel.gridPos.y * (ROW + GAP), ...size(panel, width) };
}
