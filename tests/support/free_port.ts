/** A port of loopback that was free a moment ago, for programs that can't take "any". */

export function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}
