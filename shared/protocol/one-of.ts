/** A schema that all others use: one word out of a list. */
import Type from 'typebox'

/** One of a list of words. `Type.Union` of a mapped list alone has the type `never`. */
export function oneOf<Word extends string>(words: readonly Word[]) {
  return Type.Unsafe<Word>(Type.Union(words.map((word) => Type.Literal(word))))
}
