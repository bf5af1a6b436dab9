// Template variables: their possible values from Prometheus, their chosen ones from the address, and both filled into texts.
import { ScopedVars, TimeRange, rangeUtil } from '@grafana/data';
import { Dashboard, Variable } from './model';
import { labelValues } from './prometheus';

export const ALL = '$__all';

export interface Choice {
  variable: Variable;
  values: string[];
  chosen: string[];
}

export type Choices = Map<string, Choice>;

const LABEL_VALUES = /^label_values\((?:(.+),\s*)?(\w+)\)$/s;

export async function choose(dashboard: Dashboard, address: URLSearchParams, range: TimeRange): Promise<Choices> {
  const choices: Choices = new Map();
  for (const variable of dashboard.templating.list.filter((one) => one.type === 'query')) {
    const chosen = address.getAll(`var-${variable.name}`);
    const known = { variable, values: [], chosen: chosen.length ? chosen : [ALL] };
    choices.set(variable.name, { ...known, values: await values(variable, choices, range) });
  }
  return choices;
}

async function values(variable: Variable, choices: Choices, range: TimeRange): Promise<string[]> {
  const query = typeof variable.query === 'string' ? variable.query : variable.query.query;
  const found = LABEL_VALUES.exec(query);
  if (!found) {
    throw new Error(`variable ${variable.name}: only label_values(series, label) is understood, not ${query}`);
  }
  return labelValues(found[2]!, found[1] ? fill(found[1], choices) : undefined, range);
}

// A query with its variables filled in.
export function fill(text: string, choices: Choices, builtIn: Record<string, string> = {}): string {
  return text.replace(/\$\{?(\w+)(?::\w+)?\}?/g, (whole, name: string) => {
    const choice = choices.get(name);
    return builtIn[name] ?? (choice ? matcher(choice) : whole);
  });
}

function matcher({ variable, chosen }: Choice): string {
  if (chosen.includes(ALL)) {
    return variable.allValue ?? '.*';
  }
  const escaped = chosen.map((value) => value.replace(/[\\^$*+?.()|[\]{}]/g, '\\\\$&'));
  return escaped.length === 1 ? escaped[0]! : `(${escaped.join('|')})`;
}

export function asQuery(choices: Choices, name: string): string {
  const chosen = choices.get(name)?.chosen ?? [];
  return chosen.map((value) => `var-${name}=${encodeURIComponent(value)}`).join('&');
}

// A link's address with its variables filled in: time range, chosen values, the labels or the row that was clicked.
export function fillLink(url: string, choices: Choices, range: TimeRange, scoped: ScopedVars = {}): string {
  const context = scoped.__dataContext?.value;
  const raw = rangeUtil.convertRawToRange(range.raw).raw;
  const time = [`from=${when(raw.from)}`, `to=${when(raw.to)}`].join('&');
  return url
    .replace('${__url_time_range}', time)
    .replace(/\$\{(\w+):queryparam\}/g, (_, name: string) => asQuery(choices, name))
    .replace(/\$\{__field\.labels\.(\w+):percentencode\}/g, (_, label: string) => encodeURIComponent(context?.field?.labels?.[label] ?? ''))
    .replace(/\$\{__data\.fields\["(.+?)"\]:percentencode\}/g, (_, name: string) => {
      const field = context?.frame?.fields.find((one: any) => one.name === name || one.state?.displayName === name);
      return encodeURIComponent(String(field?.values[context?.rowIndex ?? 0] ?? ''));
    })
    .replace(/&&+/g, '&');
}

function when(time: unknown): string {
  return typeof time === 'string' ? time : String((time as { valueOf(): number }).valueOf());
}
