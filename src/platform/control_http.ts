/** HTTP as a client of a manager: over its unix socket, or to a URL. */

export interface ControlHttp {
  fetch(path: string, init?: RequestInit): Promise<Response>;
  close(): void;
}

/** The runtime's own addition to fetch, whose type is only in some of its type libraries. */
interface ClientInit extends RequestInit {
  readonly client: Deno.HttpClient;
}

/** Requests go through the socket whatever the host in their URL says; it is `localhost`. */
export function httpOverSocket(socketPath: string): ControlHttp {
  const client = Deno.createHttpClient({ proxy: { transport: "unix", path: socketPath } });
  return {
    fetch: (path, init = {}) => {
      const request: ClientInit = { ...init, client };
      return fetch(`http://localhost${path}`, request);
    },
    close: () => client.close(),
  };
}

/** `base` is `http://host:port` or `https://…`, with or without a path. */
export function httpToUrl(base: string): ControlHttp {
  const client = Deno.createHttpClient({});
  const root = base.replace(/\/+$/, "");
  return {
    fetch: (path, init = {}) => {
      const request: ClientInit = { ...init, client, redirect: "error" }; // a token goes nowhere else
      return fetch(root + path, request);
    },
    close: () => client.close(),
  };
}
