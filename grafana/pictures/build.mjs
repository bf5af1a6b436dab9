// Bundles the page into build/, with the icons and fonts of Grafana's component library beside it.
import { build } from 'esbuild';
import { cpSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const out = join(here, 'build');
const modules = join(here, 'node_modules');

rmSync(out, { recursive: true, force: true });
mkdirSync(join(out, 'static'), { recursive: true });
await build({
  entryPoints: { app: join(here, 'src/main.tsx') },
  outdir: join(out, 'static'),
  bundle: true,
  minify: true,
  format: 'esm',
  splitting: true,
  chunkNames: 'chunks/[name]-[hash]',
  assetNames: 'fonts/[name]',
  loader: { '.woff2': 'file', '.woff': 'file', '.svg': 'file', '.ttf': 'file' },
  define: { 'process.env.NODE_ENV': '"production"', global: 'globalThis' },
  logLevel: 'warning',
});
cpSync(join(here, 'src/index.html'), join(out, 'index.html'));
cpSync(join(here, 'src/public-path.js'), join(out, 'static/public-path.js'));
// Where the library looks for them, under window.__grafana_public_path__.
cpSync(join(modules, '@grafana/ui/dist/public/img/icons'), join(out, 'static/build/img/icons'), { recursive: true });
for (const [weight, name] of [[400, 'Regular'], [500, 'Medium']]) {
  const font = join(modules, `@fontsource/inter/files/inter-latin-${weight}-normal.woff2`);
  cpSync(font, join(out, `static/fonts/inter/Inter-${name}.woff2`));
}
// Its style sheet names the files of Roboto Mono by a hash.
const sheet = readFileSync(join(modules, '@grafana/ui/dist/esm/themes/GlobalStyles/fonts.mjs'), 'utf8');
for (const [name] of sheet.matchAll(/roboto\/[\w-]+\.woff2/g)) {
  const font = join(modules, '@fontsource/roboto-mono/files/roboto-mono-latin-400-normal.woff2');
  cpSync(font, join(out, 'static/fonts', name));
}
