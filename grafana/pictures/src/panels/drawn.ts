import { DataFrame, GrafanaTheme2, TimeRange } from '@grafana/data';
import { Panel } from '../model';
import { Exemplar } from '../prometheus';

// What a panel is drawn from.
export interface Drawn {
  panel: Panel;
  frames: DataFrame[];
  exemplars: Exemplar[];
  range: TimeRange;
  timeZone: string;
  theme: GrafanaTheme2;
  width: number;
  height: number;
}
