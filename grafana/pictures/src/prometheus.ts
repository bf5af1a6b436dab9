// Prometheus's HTTP API, and its answers as Grafana's data frames.
import { DataFrame, Field, FieldType, Labels, TimeRange, rangeUtil } from '@grafana/data';
import { Target } from './model';

type Sample = [number, string];

interface Series {
  metric: Labels;
  values?: Sample[];
  value?: Sample;
}

export interface Exemplar {
  time: number;
  value: number;
  trace: string;
}

// The windows that Grafana's Prometheus data source would fill in.
export interface Windows {
  step: number;
  __rate_interval: string;
  __interval: string;
  __range: string;
}

export function windows(range: TimeRange, width: number, scrapeSeconds: number): Windows {
  const { intervalMs } = rangeUtil.calculateInterval(range, Math.max(width, 100), `${scrapeSeconds}s`);
  const step = intervalMs / 1000;
  const seconds = Math.round((range.to.valueOf() - range.from.valueOf()) / 1000);
  const rate = Math.max(step + scrapeSeconds, 4 * scrapeSeconds);
  return { step, __interval: `${step}s`, __rate_interval: `${rate}s`, __range: `${seconds}s` };
}

export async function labelValues(label: string, series: string | undefined, range: TimeRange): Promise<string[]> {
  const { from, to } = bounds(range);
  const match: Record<string, string> = series ? { 'match[]': series } : {};
  return ask(`label/${label}/values`, { start: from, end: to, ...match });
}

export async function frames(target: Target, expr: string, range: TimeRange, step: number, alone: boolean): Promise<DataFrame[]> {
  const { from, to } = bounds(range);
  if (target.instant) {
    const { result } = await ask('query', { query: expr, time: to });
    return target.format === 'table' ? [table(target, result, alone)] : result.map((one: Series) => course(target, one));
  }
  const start = String(Math.floor(Number(from) / step) * step);
  const { result } = await ask('query_range', { query: expr, start, end: to, step: String(step) });
  return result.map((one: Series) => course(target, one, { from: Number(start), to: Number(to), step }));
}

export async function exemplars(expr: string, range: TimeRange): Promise<Exemplar[]> {
  const { from, to } = bounds(range);
  const answer = await ask('query_exemplars', { query: expr, start: from, end: to });
  const points: Exemplar[] = answer.flatMap((one: any) =>
    one.exemplars.map((exemplar: any) => ({
      time: exemplar.timestamp * 1000,
      value: Number(exemplar.value),
      trace: exemplar.labels.trace_id ?? '',
    }))
  );
  return points.sort((one, other) => one.time - other.time);
}

async function ask(path: string, parameters: Record<string, string>): Promise<any> {
  const answer = await fetch(`/api/v1/${path}?${new URLSearchParams(parameters)}`);
  const body = await answer.json().catch(() => ({ error: `${answer.status} ${answer.statusText}` }));
  if (body.status !== 'success') {
    throw new Error(`${body.error ?? 'no answer'}: ${parameters.query ?? path}`);
  }
  return body.data;
}

function bounds(range: TimeRange): { from: string; to: string } {
  return { from: String(range.from.valueOf() / 1000), to: String(range.to.valueOf() / 1000) };
}

// One series as time and value; where Prometheus has no point, a hole, so that a gap is seen as one.
function course(target: Target, series: Series, grid?: { from: number; to: number; step: number }): DataFrame {
  const samples = new Map((series.values ?? [series.value!]).map(([time, value]) => [time, Number(value)]));
  const times = grid ? [...steps(grid)] : [...samples.keys()];
  const name = legend(target.legendFormat, series.metric);
  const value: Field = {
    name: 'Value',
    type: FieldType.number,
    config: { displayNameFromDS: name },
    labels: series.metric,
    values: times.map((time) => finite(samples.get(time))),
  };
  const time: Field = { name: 'Time', type: FieldType.time, config: {}, values: times.map((one) => one * 1000) };
  return { refId: target.refId, name, fields: [time, value], length: times.length };
}

function* steps({ from, to, step }: { from: number; to: number; step: number }): Generator<number> {
  for (let time = from; time <= to; time += step) {
    yield Math.round(time * 1000) / 1000;
  }
}

function finite(value: number | undefined): number | null {
  return value === undefined || !Number.isFinite(value) ? null : value;
}

// All series of an instant query as one table: a column per label, one for the value.
function table(target: Target, result: Series[], alone: boolean): DataFrame {
  const labels = [...new Set(result.flatMap((one) => Object.keys(one.metric)))].filter((one) => one !== '__name__').sort();
  const columns = labels.map((label) => ({
    name: label,
    type: FieldType.string,
    config: {},
    values: result.map((one) => one.metric[label] ?? ''),
  }));
  const time = { name: 'Time', type: FieldType.time, config: {}, values: result.map((one) => one.value![0] * 1000) };
  const values = result.map((one) => finite(Number(one.value![1])));
  const value = { name: alone ? 'Value' : `Value #${target.refId}`, type: FieldType.number, config: {}, values };
  return { refId: target.refId, fields: [time, ...columns, value], length: result.length };
}

function legend(format: string | undefined, labels: Labels): string {
  if (!format) {
    return Object.entries(labels).map(([key, value]) => `${key}="${value}"`).join(', ') || 'value';
  }
  return format.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, label: string) => labels[label] ?? '');
}
