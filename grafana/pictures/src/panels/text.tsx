import { renderTextPanelMarkdown } from '@grafana/data';
import { Drawn } from './drawn';

export function Text({ panel, height }: Drawn) {
  const html = renderTextPanelMarkdown(String(panel.options.content));
  return <div className="markdown-html prose" style={{ height, overflow: 'auto' }} dangerouslySetInnerHTML={{ __html: html }} />;
}
