/** One order of keys for values that anybody wrote: what is hashed or signed does not depend on who wrote it. */

/** What of JSON Schema (2020-12, `properties` and `items`) says where the keys of a value stand. */
interface Shape {
  readonly properties?: Readonly<Record<string, Shape>>
  readonly items?: Shape
}

/** The value with its keys in the order of the schema, at every depth. Takes values that fit the schema. */
export function inSchemaOrder(schema: object, value: unknown): unknown {
  const { properties, items } = schema as Shape
  if (Array.isArray(value)) {
    return items === undefined ? value : value.map((item) => inSchemaOrder(items, item))
  }
  if (properties === undefined || typeof value !== 'object' || value === null) return value
  const fields = new Map<string, unknown>(Object.entries(value))
  return Object.fromEntries(
    Object.entries(properties)
      .filter(([name]) => fields.has(name))
      .map(([name, shape]) => [name, inSchemaOrder(shape, fields.get(name))]),
  )
}
