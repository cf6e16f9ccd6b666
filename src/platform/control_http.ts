/** HTTP as a client of a manager: over its unix socket, or to a URL. */

export interface ControlHttp {
  fetch(path: string, init?: RequestInit): Promise<Response>;
  close(): void;
}

/** Requests go through the socket whatever the host in their URL says; it is `localhost`. */
export function httpOverSocket(socketPath: string): ControlHttp {
  const client = Deno.createHttpClient({ proxy: { transport: "unix", path: socketPath } });
  return {
    fetch: (path, init = {}) => fetch(`http://localhost${path}`, { ...init, client }),
    close: () => client.close(),
  };
}

/** `base` is `http://host:port` or `https://…`, with or without a path. */
export function httpToUrl(base: string): ControlHttp {
  const client = Deno.createHttpClient({});
  const root = base.replace(/\/+$/, "");
  return {
    fetch: (path, init = {}) => fetch(root + path, { ...init, client, redirect: "error" }),
    close: () => client.close(),
  };
}
