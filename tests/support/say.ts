/** What a test tells besides passing: counts, times, seeds. On its own line in the runner's output. */
export function say(text: string): void {
  Deno.stderr.writeSync(new TextEncoder().encode(`\n    ${text}\n`));
}
