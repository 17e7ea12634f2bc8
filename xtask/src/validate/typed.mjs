// node typed.mjs operator|dashboard GIVEN MADE.ts
//
// Checks what can be checked at run time, and writes the rest for the TypeScript compiler: as literals, in which one
// field too many is an error.
import { readFileSync, writeFileSync } from "node:fs";

const [kind, given, made] = process.argv.slice(2);
const text = readFileSync(given, "utf8");
const lines = [];

if (kind === "operator") {
  const { loadAll } = await import("js-yaml");
  const models = await import("@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1");
  const kinds = new Set();
  for (const [place, document] of loadAll(text).entries()) {
    if (!models[document.kind]) throw new Error(`${document.kind}: no kind of the operator`);
    new models[document.kind](document).validate();
    kinds.add(document.kind);
    lines.push(`export const of${place}: I${document.kind} = ${JSON.stringify(document, null, 1)};`);
  }
  for (const wanted of ["PodMonitor", "PrometheusRule"])
    if (!kinds.has(wanted)) throw new Error(`no ${wanted}`);
  const from = "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";
  lines.unshift(...[...kinds].map((kind) => `import type { I${kind} } from "${from}/${kind}";`));
} else {
  const dashboard = JSON.parse(text);
  const from = "@grafana/schema/dist/esm/raw/composable";
  lines.push(
    'import type { Dashboard, FieldConfig } from "@grafana/schema";',
    `import type * as stat from "${from}/stat/panelcfg/x/StatPanelCfg_types.gen";`,
    `import type * as table from "${from}/table/panelcfg/x/TablePanelCfg_types.gen";`,
    `import type * as text from "${from}/text/panelcfg/x/TextPanelCfg_types.gen";`,
    `import type * as timeseries from "${from}/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";`,
    // JSON has the values of enumerations, not their names.
    "type Plain<T> = unknown extends T ? T : T extends string ? `${T}` :",
    "  T extends object ? { [K in keyof T]: Plain<T[K]> } : T;",
    // What Grafana's own data source for Prometheus takes: it is in no package.
    "interface Query { refId: string; expr: string; datasource: { type: 'prometheus'; uid: string };",
    "  legendFormat?: string; format?: 'time_series' | 'table'; instant?: boolean; range?: boolean;",
    "  interval?: string; hide?: boolean; editorMode?: 'code'; exemplar?: boolean }",
  );
  const literal = (what, type, value) =>
    lines.push(`export const ${what}: ${type} = ${JSON.stringify(value, null, 1)};`);
  // An annotation's query is one of the data source's, which the type of a dashboard does not know.
  const annotations = dashboard.annotations?.list ?? [];
  literal("annotations", "Query[]", annotations.map((annotation) => annotation.target));
  for (const annotation of annotations) annotation.target = { refId: annotation.target.refId };
  literal("dashboard", "Plain<Dashboard>", dashboard);
  const types = { stat: [0, 1], table: [1, 1], text: [0, 1], timeseries: [1, 1] };
  const ids = new Set();
  const flat = dashboard.panels.flatMap((panel) => [panel, ...(panel.panels ?? [])]);
  for (const panel of flat) {
    if (ids.has(panel.id)) throw new Error(`two panels with the id ${panel.id}`);
    ids.add(panel.id);
    if (panel.type === "row") continue;
    if (!types[panel.type]) throw new Error(`panel ${panel.id}: a ${panel.type} is not checked here`);
    literal(`options${panel.id}`, `Plain<Partial<${panel.type}.Options>>`, panel.options ?? {});
    if (types[panel.type][0])
      literal(`custom${panel.id}`, `Plain<Partial<${panel.type}.FieldConfig>>`, panel.fieldConfig?.defaults?.custom ?? {});
    // What an override sets goes by a path: `custom.width` is the panel's, `unit` everybody's.
    const properties = (panel.fieldConfig?.overrides ?? []).flatMap((override) => override.properties);
    for (const [place, { id, value }] of properties.entries()) {
      const own = id.startsWith("custom.");
      const type = own ? `${panel.type}.FieldConfig` : "FieldConfig";
      literal(`override${panel.id}_${place}`, `Plain<Partial<${type}>>`, { [id.replace("custom.", "")]: value });
    }
    literal(`queries${panel.id}`, "Query[]", panel.targets ?? []);
  }
}
writeFileSync(made, lines.join("\n"));
