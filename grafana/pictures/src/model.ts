// The part of Grafana's classic dashboard model that the dashboards of this project use.
import { DataTransformerConfig, FieldConfigSource } from '@grafana/data';

export interface Target {
  refId: string;
  expr: string;
  legendFormat?: string;
  instant?: boolean;
  exemplar?: boolean;
  format?: 'time_series' | 'table' | 'heatmap';
}

export interface PanelLink {
  title: string;
  url: string;
}

export interface Panel {
  id: number;
  type: string;
  title: string;
  description?: string;
  gridPos: { x: number; y: number; w: number; h: number };
  targets?: Target[];
  links?: PanelLink[];
  options: Record<string, any>;
  fieldConfig?: FieldConfigSource;
  transformations?: DataTransformerConfig[];
}

export interface Variable {
  name: string;
  type: string;
  label?: string;
  query: { query: string } | string;
  allValue?: string;
  hide?: number;
}

export interface Dashboard {
  uid: string;
  title: string;
  description: string;
  refresh: string;
  panels: Panel[];
  templating: { list: Variable[] };
  time: { from: string; to: string };
}

// What became of one panel; the test that draws every dashboard reads it.
export interface Outcome {
  id: number;
  title: string;
  type: string;
  state: 'data' | 'empty' | 'error';
  message?: string;
}
