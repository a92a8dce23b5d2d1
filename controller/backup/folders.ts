/** Where a controller keeps what a backup takes; `paths` of the ceremony has this shape. */
export interface ControllerFolders {
  readonly authority: string
  readonly state: string
  readonly pki: string
  readonly operators: string
  readonly events: string
}

/** Told how far it has come: what is being done, and bytes of how many. */
export type Progress = (what: string, done: number, of: number) => void
