// Units, thresholds, colours, names and links of fields: what Grafana's server-side page would apply before it draws.
import {
  DataFrame,
  FieldConfigOptionsRegistry,
  FieldConfigPropertyItem,
  GrafanaTheme2,
  ScopedVars,
  TimeRange,
  applyFieldOverrides,
  cacheFieldDisplayNames,
} from '@grafana/data';
import { Panel } from './model';
import { Choices, fillLink } from './variables';

const STANDARD = ['unit', 'min', 'max', 'decimals', 'displayName', 'color', 'thresholds', 'mappings', 'noValue', 'links'];

export function dress(panel: Panel, frames: DataFrame[], theme: GrafanaTheme2, choices: Choices, range: TimeRange): DataFrame[] {
  const fieldConfig = panel.fieldConfig ?? { defaults: {}, overrides: [] };
  const dressed = applyFieldOverrides({
    data: frames,
    fieldConfig,
    fieldConfigRegistry: registry(panel),
    replaceVariables: (text: string, scoped?: ScopedVars) => fillLink(text, choices, range, scoped),
    theme,
    timeZone: 'utc',
  });
  cacheFieldDisplayNames(dressed);
  return dressed;
}

// The npm package has the registry, empty; filled here with the keys that the panel's JSON uses.
function registry(panel: Panel): FieldConfigOptionsRegistry {
  const custom = Object.keys(panel.fieldConfig?.defaults.custom ?? {}).map((key) => `custom.${key}`);
  const overridden = (panel.fieldConfig?.overrides ?? []).flatMap((one) => one.properties.map((property) => property.id));
  const ids = new Set([...STANDARD, ...custom, ...overridden]);
  return new FieldConfigOptionsRegistry(() => [...ids].map(item));
}

function item(id: string): FieldConfigPropertyItem {
  const isCustom = id.startsWith('custom.');
  return {
    id,
    path: isCustom ? id.slice('custom.'.length) : id,
    name: id,
    isCustom,
    editor: () => null,
    override: () => null,
    process: (value: unknown) => value,
    // An axis on the time field would be a second time axis.
    shouldApply: (field: { type: string }) => !(id.startsWith('custom.axis') && field.type === 'time'),
    settings: {},
  } as unknown as FieldConfigPropertyItem;
}
