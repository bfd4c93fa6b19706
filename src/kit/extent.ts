/** A run of bytes `[from, to)`, offsets from the start of the content. */
export interface Extent {
  readonly from: number;
  readonly to: number;
}
