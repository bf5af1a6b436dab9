// Parses TraceQL with Grafana's own grammar. Stdin: a JSON array of queries; stdout: for each of them what the grammar
// does not know, as a JSON array of strings.
import { readFileSync } from 'node:fs';

import { parser } from '@grafana/lezer-traceql';

const unknown = (query) => {
  const found = [];
  parser.parse(query).iterate({
    enter: (node) => {
      if (node.type.isError) {
        found.push(`at ${node.from}: ${query.slice(node.from, node.to) || 'something is missing'}`);
      }
    },
  });
  return found;
};

process.stdout.write(JSON.stringify(JSON.parse(readFileSync(0, 'utf8')).map(unknown)));
