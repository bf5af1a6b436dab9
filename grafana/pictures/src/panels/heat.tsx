// heatmap: Grafana's component library has none, so the cells are painted here on its plot.
import { DataFrame, FieldType, getValueFormat } from '@grafana/data';
import { AxisPlacement, ScaleDirection, ScaleOrientation, UPlotChart, UPlotConfigBuilder } from '@grafana/ui';
import { useMemo } from 'react';
import uPlot, { AlignedData } from 'uplot';
import { Drawn } from './drawn';

// From nothing to most: the colours of the scheme "Oranges" that read on a dark ground.
const RAMP = [
  [60, 38, 18],
  [166, 76, 20],
  [242, 140, 40],
  [255, 235, 200],
] as const;

// Pixels from which on cells are set apart by a gap.
const WIDE_CELL = 20;

export interface Grid {
  times: number[];
  bounds: number[];
  counts: number[][];
  most: number;
}

// Cumulative buckets, one frame per `le`, as counts per cell; rows without a count at either end are left out.
export function grid(frames: DataFrame[]): Grid {
  const buckets = frames
    .map((frame) => ({ le: bound(frame), frame }))
    .sort((one, other) => one.le - other.le);
  const cumulative = buckets.map(({ frame }) => frame.fields.find((field) => field.type === FieldType.number)!.values);
  const counts = cumulative.map((values, row) =>
    values.map((value: number | null, column: number) => Math.max(0, (value ?? 0) - (row ? cumulative[row - 1]![column] ?? 0 : 0)))
  );
  const filled = counts.map((row) => row.some((count: number) => count > 0));
  const first = Math.max(0, filled.indexOf(true) - 1);
  const last = Math.min(counts.length, filled.lastIndexOf(true) + 2);
  const shown = counts.slice(first, last);
  return {
    times: frames[0]?.fields[0]?.values ?? [],
    bounds: buckets.slice(first, last).map(({ le }) => le),
    counts: shown,
    most: Math.max(0, ...shown.flat()),
  };
}

export function Heat({ panel, frames, range, timeZone, theme, width, height }: Drawn) {
  const cells = useMemo(() => grid(frames), [frames]);
  const config = useMemo(() => {
    const builder = new UPlotConfigBuilder(timeZone);
    const rows = cells.bounds.length;
    const format = getValueFormat(panel.options.yAxis?.unit ?? panel.fieldConfig?.defaults.unit ?? 'short');
    builder.addScale({
      scaleKey: 'x', isTime: true, orientation: ScaleOrientation.Horizontal, direction: ScaleDirection.Right,
      range: () => [range.from.valueOf(), range.to.valueOf()],
    });
    builder.addScale({
      scaleKey: 'y', orientation: ScaleOrientation.Vertical, direction: ScaleDirection.Up, range: () => [0, rows],
    });
    builder.addAxis({ scaleKey: 'x', isTime: true, placement: AxisPlacement.Bottom, timeZone, theme });
    builder.addAxis({
      scaleKey: 'y', placement: AxisPlacement.Left, theme,
      splits: () => cells.bounds.map((_, row) => row + 1),
      values: (_, splits) => splits.map((split) => label(cells.bounds[split - 1], format)),
      space: () => 18,
    });
    builder.addSeries({ scaleKey: 'y', theme, show: true, pathBuilder: () => null, lineWidth: 0 } as never);
    builder.addHook('draw', (plot) => paint(plot, cells));
    return builder;
  }, [cells, panel, range, timeZone, theme]);
  const data = [cells.times, cells.times.map(() => null)] as AlignedData;
  return <UPlotChart data={data} config={config} width={width} height={height} />;
}

function bound(frame: DataFrame): number {
  const le = frame.fields.find((field) => field.type === FieldType.number)?.labels?.le;
  return le === '+Inf' || le === undefined ? Infinity : Number(le);
}

function label(le: number | undefined, format: ReturnType<typeof getValueFormat>): string {
  if (le === undefined || le === Infinity) {
    return '';
  }
  const { prefix = '', text, suffix = '' } = format(le);
  return `${prefix}${text.replace(/\.0+$/, '')}${suffix}`;
}

function paint(plot: uPlot, { times, counts, most }: Grid) {
  const step = (times[1] ?? 0) - (times[0] ?? 0);
  const cell = plot.valToPos(step, 'x', true) - plot.valToPos(0, 'x', true);
  const gap = cell > WIDE_CELL * devicePixelRatio ? devicePixelRatio : 0;
  counts.forEach((row, y) =>
    row.forEach((count, index) => {
      const right = plot.valToPos(times[index]!, 'x', true);
      const left = Math.max(plot.bbox.left, plot.valToPos(times[index]! - step, 'x', true));
      const top = plot.valToPos(y + 1, 'y', true);
      const bottom = plot.valToPos(y, 'y', true);
      if (count > 0 && right > plot.bbox.left) {
        plot.ctx.fillStyle = colour(Math.sqrt(count / most));
        plot.ctx.fillRect(left + gap, top + 1, right - left - gap + (gap ? 0 : 0.5), bottom - top - 1);
      }
    })
  );
}

function colour(share: number): string {
  const at = Math.min(0.999, share) * (RAMP.length - 1);
  const low = RAMP[Math.floor(at)]!;
  const high = RAMP[Math.floor(at) + 1]!;
  const mixed = low.map((part, index) => Math.round(part + (high[index]! - part) * (at % 1)));
  return `rgb(${mixed.join(',')})`;
}
