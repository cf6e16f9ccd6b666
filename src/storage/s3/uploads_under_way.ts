/** Uploads side by side share one line, so each of them takes the time of all: what an upload may take goes by that. */

class Upload {
  readonly #bytes: number;
  mostAtOnce = 0;

  constructor(bytes: number) {
    this.#bytes = bytes;
  }

  /**
   * What a line that is fair to all may have to carry until this upload is through: its own bytes, as often as there were
   * uploads at one time while it was under way. Grows when others begin.
   */
  get lineBytes(): number {
    return this.#bytes * this.mostAtOnce;
  }
}

export class UploadsUnderWay {
  readonly #uploads = new Set<Upload>();

  /** Requests without a body take no part. */
  begin(bytes: number): Upload {
    const upload = new Upload(bytes);
    if (bytes === 0) return upload;
    this.#uploads.add(upload);
    const { size } = this.#uploads;
    for (const each of this.#uploads) each.mostAtOnce = Math.max(each.mostAtOnce, size);
    return upload;
  }

  end(upload: Upload): void {
    this.#uploads.delete(upload);
  }
}
