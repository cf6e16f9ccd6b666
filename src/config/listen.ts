/** Addresses to listen on: `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`, `:8080` and `8080`. */

/** Null when the text is none. `:8080` is every address; `8080` alone is loopback. Port 0: any free one. */
export function parseListen(text: string): { readonly hostname: string; readonly port: number } | null {
  const match = /^(?:(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]*):)?(\d{1,5})$/.exec(text);
  if (match === null) return null;
  const port = Number(match[2]);
  if (port > 65_535) return null;
  const host = match[1];
  if (host === undefined) return { hostname: "127.0.0.1", port };
  if (host === "") return { hostname: "0.0.0.0", port };
  const bare = host.replace(/^\[|\]$/g, "");
  if (host.startsWith("[") && !URL.canParse(`http://${host}/`)) return null;
  return { hostname: bare, port };
}

/** True for the addresses that only this machine can reach. `localhost` resolves to one of them by RFC 6761. */
export function isLoopback(hostname: string): boolean {
  const name = hostname.toLowerCase().replace(/^\[(.*)\]$/, "$1");
  return name === "localhost" || name === "::1" || /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(name);
}
