// stat and bargauge: one reduced value per series.
import { FieldDisplay, VizOrientation, getDisplayValueAlignmentFactors, getFieldDisplayValues } from '@grafana/data';
import { BarGauge, BigValue, BigValueColorMode, BigValueGraphMode, VizRepeater } from '@grafana/ui';
import { Drawn } from './drawn';

export function reduced({ panel, frames, theme, timeZone }: Drawn, sparkline: boolean): FieldDisplay[] {
  return getFieldDisplayValues({
    data: frames,
    fieldConfig: panel.fieldConfig ?? { defaults: {}, overrides: [] },
    reduceOptions: panel.options.reduceOptions,
    replaceVariables: (text: string) => text,
    theme,
    timeZone,
    sparkline,
  });
}

export function Stat(drawn: Drawn) {
  const { panel, theme, range } = drawn;
  const sparkline = panel.options.graphMode !== BigValueGraphMode.None;
  return (
    <Repeated
      drawn={drawn}
      values={reduced(drawn, sparkline)}
      autoGrid
      render={({ value, width, height, alignmentFactors, count }) => (
        <BigValue
          value={value.display}
          sparkline={value.sparkline ? { ...value.sparkline, timeRange: range } : undefined}
          colorMode={panel.options.colorMode as BigValueColorMode}
          graphMode={panel.options.graphMode}
          justifyMode={panel.options.justifyMode}
          textMode={panel.options.textMode}
          alignmentFactors={alignmentFactors}
          count={count}
          theme={theme}
          width={width}
          height={height}
        />
      )}
    />
  );
}

export function Bars(drawn: Drawn) {
  const { panel, theme } = drawn;
  return (
    <Repeated
      drawn={drawn}
      values={reduced(drawn, false)}
      render={({ value, width, height, alignmentFactors, orientation }) => (
        <BarGauge
          value={value.display}
          display={value.view?.getFieldDisplayProcessor(value.colIndex ?? 0)}
          field={value.field}
          displayMode={panel.options.displayMode}
          valueDisplayMode={panel.options.valueMode}
          namePlacement={panel.options.namePlacement}
          showUnfilled={panel.options.showUnfilled}
          alignmentFactors={alignmentFactors}
          orientation={orientation}
          itemSpacing={8}
          theme={theme}
          width={width}
          height={height}
        />
      )}
    />
  );
}

interface RepeatedProps {
  drawn: Drawn;
  values: FieldDisplay[];
  autoGrid?: boolean;
  render: (props: any) => React.JSX.Element;
}

function Repeated({ drawn, values, autoGrid, render }: RepeatedProps) {
  const { panel, width, height, frames } = drawn;
  return (
    <VizRepeater
      getValues={() => values}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      renderValue={render}
      width={width}
      height={height}
      source={frames}
      renderCounter={0}
      autoGrid={autoGrid}
      itemSpacing={8}
      minVizHeight={panel.options.minVizHeight ?? 16}
      maxVizHeight={panel.options.maxVizHeight ?? 300}
      minVizWidth={panel.options.minVizWidth ?? 8}
      orientation={(panel.options.orientation ?? 'auto') as VizOrientation}
    />
  );
}
