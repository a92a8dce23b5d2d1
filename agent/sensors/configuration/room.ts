/** The memory that all watched files share: how many there are, and how much of them is kept. */

export interface Room {
  /** Whether there is room for so much more. */
  take(files: number, characters: number): boolean
  give(files: number, characters: number): void
  counts(): RoomCounts
}

export interface RoomCounts {
  /** Files that are kept, and the characters they take. */
  readonly files: number
  readonly characters: number
  /** How often there was no room for a file, or for its text. */
  readonly unwatched: number
}

export function createRoom(limits: { readonly filesMax: number; readonly charactersMax: number }): Room {
  let files = 0
  let characters = 0
  let unwatched = 0
  return {
    take(moreFiles, moreCharacters) {
      if (files + moreFiles > limits.filesMax || characters + moreCharacters > limits.charactersMax) {
        unwatched += 1
        return false
      }
      files += moreFiles
      characters += moreCharacters
      return true
    },
    give(fewerFiles, fewerCharacters) {
      files -= fewerFiles
      characters -= fewerCharacters
    },
    counts: () => ({ files, characters, unwatched }),
  }
}
