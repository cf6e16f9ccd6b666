/** The events that a data folder's catalog has, as whoever opens the file would read them. */

import { DatabaseSync } from "node:sqlite";

export interface KeptEvent {
  readonly kind: string;
  readonly subject: string;
  readonly summary: string;
  readonly detail: unknown;
}

/** Oldest first. */
export function keptHistory(dataDir: string, kind: string): KeptEvent[] {
  const database = new DatabaseSync(`${dataDir}/catalog.db`, { readOnly: true });
  try {
    const rows = database.prepare("SELECT * FROM events WHERE kind=? ORDER BY id").all(kind);
    return rows.map(({ subject, summary, detail }) => ({
      kind,
      subject: String(subject),
      summary: String(summary),
      detail: JSON.parse(String(detail)),
    }));
  } finally {
    database.close();
  }
}
