/** `INC-` and a number that counts up: how people speak of an incident. */
export function incidentId(number: number): string {
  return `INC-${number}`
}

/** Undefined for a text that names no incident. */
export function incidentNumber(id: string): number | undefined {
  const digits = /^INC-([1-9][0-9]{0,14})$/.exec(id)?.[1]
  return digits === undefined ? undefined : Number(digits)
}
