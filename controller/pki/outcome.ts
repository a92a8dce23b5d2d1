/** How functions of the PKI answer: a value, or an error told apart by its `kind`. */
export type Outcome<Value, Failure> =
  | { readonly ok: true; readonly value: Value }
  | { readonly ok: false; readonly error: Failure }

export interface PkiError<Kind extends string> {
  readonly kind: Kind
  readonly reason: string
}

export function failed<Kind extends string>(
  kind: Kind,
  reason: string,
): { readonly ok: false; readonly error: PkiError<Kind> } {
  return { ok: false, error: { kind, reason } }
}
