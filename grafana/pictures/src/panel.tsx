// One panel: asks, dresses, draws, and tells what became of it.
import { DataFrame, FieldType, LoadingState, TimeRange } from '@grafana/data';
import { Icon, PanelChrome, Tooltip, useTheme2 } from '@grafana/ui';
import { useEffect, useState } from 'react';
import { dress } from './fields';
import { Outcome, Panel } from './model';
import { Course } from './panels/course';
import { Drawn } from './panels/drawn';
import { Heat, grid } from './panels/heat';
import { Table } from './panels/table';
import { Text } from './panels/text';
import { Bars, Stat } from './panels/values';
import { Exemplar, exemplars, frames as ask, windows } from './prometheus';
import { transform } from './transform';
import { Choices, fill, fillLink } from './variables';

export interface Looked {
  choices: Choices;
  range: TimeRange;
  timeZone: string;
  scrapeSeconds: number;
}

interface Props extends Looked {
  panel: Panel;
  width: number;
  height: number;
  onOutcome: (outcome: Outcome) => void;
}

interface Answer {
  frames: DataFrame[];
  exemplars: Exemplar[];
  range: TimeRange;
}

const VISUALS: Record<string, (drawn: Drawn) => React.JSX.Element> = {
  stat: Stat,
  bargauge: Bars,
  timeseries: Course,
  heatmap: Heat,
  table: Table,
  text: Text,
};

export function PanelView({ panel, width, height, onOutcome, ...looked }: Props) {
  const theme = useTheme2();
  const [answer, setAnswer] = useState<Answer>();
  const [error, setError] = useState<string>();
  const Visual = VISUALS[panel.type];

  useEffect(() => {
    let current = true;
    const tell = (state: Outcome['state'], message?: string) =>
      onOutcome({ id: panel.id, title: panel.title, type: panel.type, state, message });
    answerTo(panel, width, looked)
      .then((given) => {
        if (!current) {
          return;
        }
        const dressed = dress(panel, given.frames, theme, looked.choices, looked.range);
        setAnswer({ ...given, frames: dressed });
        setError(undefined);
        const empty = panel.type !== 'text' && !filled(panel, dressed);
        tell(empty ? 'empty' : 'data');
      })
      .catch((failure: Error) => {
        if (current) {
          setError(failure.message);
          tell('error', failure.message);
        }
      });
    return () => {
      current = false;
    };
  }, [panel, width, looked.range, looked.choices]);

  const shown = answer && (panel.type === 'text' || filled(panel, answer.frames));
  return (
    <PanelChrome
      title={panel.title}
      description={panel.description}
      width={width}
      height={height}
      statusMessage={error}
      loadingState={answer || error ? LoadingState.Done : LoadingState.Loading}
      titleItems={<Links panel={panel} {...looked} />}
    >
      {(innerWidth, innerHeight) =>
        shown && Visual ? (
          <Visual
            {...answer} panel={panel} theme={theme} timeZone={looked.timeZone} width={innerWidth} height={innerHeight}
          />
        ) : (
          <div className="nothing">{error ?? (answer ? panel.fieldConfig?.defaults.noValue ?? 'No data' : '')}</div>
        )
      }
    </PanelChrome>
  );
}

async function answerTo(panel: Panel, width: number, looked: Looked): Promise<Answer> {
  if (!VISUALS[panel.type]) {
    throw new Error(`panel type ${panel.type} has no renderer`);
  }
  const { step, ...builtIn } = windows(looked.range, width, looked.scrapeSeconds);
  const targets = panel.targets ?? [];
  const alone = targets.length === 1;
  const asked = targets.map((target) => ({ target, expr: fill(target.expr, looked.choices, { ...builtIn }) }));
  const given = await Promise.all(asked.map(({ target, expr }) => ask(target, expr, looked.range, step, alone)));
  const traced = asked.filter(({ target }) => target.exemplar && panel.type === 'timeseries');
  const points = await Promise.all(traced.map(({ expr }) => exemplars(expr, looked.range)));
  return { frames: await transform(panel.transformations, given.flat()), exemplars: points.flat(), range: looked.range };
}

function filled(panel: Panel, frames: DataFrame[]): boolean {
  if (panel.type === 'heatmap') {
    return grid(frames).most > 0;
  }
  const numbers = frames.flatMap((frame) => frame.fields.filter((field) => field.type === FieldType.number));
  return numbers.some((field) => field.values.some((value: number | null) => value !== null && Number.isFinite(value)));
}

// Links into Grafana's Explore need Grafana and a trace store, which this page has not.
function Links({ panel, choices, range }: Looked & { panel: Panel }) {
  const links = (panel.links ?? []).filter(({ url }) => !url.startsWith('/explore'));
  return (
    <>
      {links.map(({ title, url }) => (
        <Tooltip key={title} content={title}>
          <a className="onward" href={fillLink(url, choices, range)} aria-label={title}>
            <Icon name="arrow-right" size="sm" />
          </a>
        </Tooltip>
      ))}
    </>
  );
}
