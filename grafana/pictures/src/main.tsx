import { createTheme, ThemeContext } from '@grafana/data';
import { initPluginTranslations } from '@grafana/i18n';
import { GlobalStyles, PortalContainer } from '@grafana/ui';
import { createRoot } from 'react-dom/client';
import { DashboardView, Settings } from './dashboard';
import { Dashboard } from './model';
import './page.css';

async function read<T>(path: string): Promise<T> {
  const answer = await fetch(path);
  if (!answer.ok) {
    throw new Error(`${path}: ${answer.status}`);
  }
  return answer.json();
}

await initPluginTranslations('poolscope');
const settings = await read<Settings>('/settings.json');
const uid = location.pathname.match(/^\/d\/([\w-]+)/)?.[1] ?? settings.dashboards[0]!.uid;
const dashboard = await read<Dashboard>(`/dashboards/${uid}.json`);
document.title = `${dashboard.title} · poolscope`;
const light = new URLSearchParams(location.search).get('theme') === 'light';

createRoot(document.getElementById('page')!).render(
  <ThemeContext.Provider value={createTheme({ colors: { mode: light ? 'light' : 'dark' } })}>
    <GlobalStyles />
    <DashboardView dashboard={dashboard} settings={settings} />
    <PortalContainer />
  </ThemeContext.Provider>
);
