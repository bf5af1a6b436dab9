// timeseries, with the exemplars of its histograms as points that lead to traces.
import { TimeSeries, TooltipPlugin, UPlotConfigBuilder } from '@grafana/ui';
import { DataFrame } from '@grafana/data';
import { useMemo } from 'react';
import { Exemplar } from '../prometheus';
import { Drawn } from './drawn';

// More would hide the lines; these are taken evenly over time.
const MAX_EXEMPLARS = 80;

export function Course({ panel, frames, exemplars, range, timeZone, width, height, theme }: Drawn) {
  const key = useMemo(() => ({ count: exemplars.length }), [exemplars]);
  const colour = theme.visualization.getColorByName('purple');
  return (
    <TimeSeries
      frames={frames}
      timeRange={range}
      timeZone={timeZone}
      width={width}
      height={height}
      legend={panel.options.legend}
      options={key}
    >
      {(config: UPlotConfigBuilder, aligned: DataFrame) => (
        <>
          <Points config={config} exemplars={exemplars} colour={colour} />
          <TooltipPlugin
            config={config}
            data={aligned}
            frames={frames}
            mode={panel.options.tooltip?.mode}
            sortOrder={panel.options.tooltip?.sort}
            timeZone={timeZone}
          />
        </>
      )}
    </TimeSeries>
  );
}

// Called while the plot's configuration is new, before the plot is made of it.
function Points({ config, exemplars, colour }: { config: UPlotConfigBuilder; exemplars: Exemplar[]; colour: string }) {
  useMemo(() => {
    config.addHook('draw', (plot) => {
      const scale = plot.series[1]?.scale;
      if (!scale || exemplars.length === 0) {
        return;
      }
      const { ctx, bbox } = plot;
      ctx.save();
      ctx.fillStyle = colour;
      for (const { time, value } of exemplars.filter((_, index) => index % Math.ceil(exemplars.length / MAX_EXEMPLARS) === 0)) {
        const x = plot.valToPos(time, 'x', true);
        const y = plot.valToPos(value, scale, true);
        if (x >= bbox.left && x <= bbox.left + bbox.width && y >= bbox.top && y <= bbox.top + bbox.height) {
          diamond(ctx, x, y, 4 * devicePixelRatio);
        }
      }
      ctx.restore();
    });
  }, [config, exemplars, colour]);
  return null;
}

function diamond(ctx: CanvasRenderingContext2D, x: number, y: number, size: number) {
  ctx.beginPath();
  ctx.moveTo(x, y - size);
  ctx.lineTo(x + size, y);
  ctx.lineTo(x, y + size);
  ctx.lineTo(x - size, y);
  ctx.closePath();
  ctx.fill();
}
