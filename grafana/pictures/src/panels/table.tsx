import { TableNG } from '@grafana/ui/unstable';
import { Drawn } from './drawn';

export function Table({ panel, frames, width, height, range }: Drawn) {
  return (
    <TableNG
      data={frames[0]!}
      width={width}
      height={height}
      sortBy={panel.options.sortBy}
      cellHeight={panel.options.cellHeight}
      noHeader={!panel.options.showHeader}
      fieldConfig={panel.fieldConfig}
      timeRange={range}
      enableVirtualization={false}
    />
  );
}
