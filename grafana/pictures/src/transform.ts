// The transformations that the dashboards use.
import {
  DataFrame,
  DataTransformerConfig,
  TransformerRegistryItem,
  standardTransformers,
  standardTransformersRegistry,
  transformDataFrame,
} from '@grafana/data';
import { firstValueFrom } from 'rxjs';

const USED = [standardTransformers.mergeTransformer, standardTransformers.organizeFieldsTransformer, standardTransformers.renameFieldsTransformer,
  standardTransformers.orderFieldsTransformer, standardTransformers.filterFieldsByNameTransformer, standardTransformers.filterFieldsTransformer];

standardTransformersRegistry.setInit(() =>
  USED.map((one) => ({ id: one.id, name: one.name, transformation: async () => one, editor: () => null, imageDark: '', imageLight: '' })) as
    unknown as TransformerRegistryItem[]
);

export async function transform(configs: DataTransformerConfig[] | undefined, frames: DataFrame[]): Promise<DataFrame[]> {
  for (const { id } of configs ?? []) {
    if (!standardTransformersRegistry.getIfExists(id)) {
      throw new Error(`transformation ${id} is not known to this page`);
    }
  }
  // Grafana shows no row for a query without series.
  return firstValueFrom(transformDataFrame(configs ?? [], frames.filter((frame) => !configs?.length || frame.length > 0)));
}
