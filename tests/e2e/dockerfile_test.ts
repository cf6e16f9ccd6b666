/**
 * The Dockerfile builds and its image works. With no registry: small base images of this machine's own files are
 * committed under the names that the Dockerfile wants, and the build sees the project's caches as volumes.
 */

import assert from "node:assert/strict";
import { tool } from "../support/mounts.ts";
import { scratchFolder } from "../support/manager_process.ts";

const root = new URL("../../", import.meta.url).pathname;

async function output(
  command: string,
  args: readonly string[],
): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(command, {
    args: [...args],
    cwd: root,
  }).output();
  const text = new TextDecoder().decode(stdout);
  assert.ok(
    success,
    `${command} ${args.join(" ")}\n${text.slice(-4000)}\n${new TextDecoder().decode(stderr).slice(-4000)}`,
  );
  return text.trim();
}

async function isFile(path: string): Promise<boolean> {
  return await Deno.stat(path).then((info) => info.isFile, () => false);
}

const BUSYBOX = "/bin/busybox";
const CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt";
const usable = Deno.uid() === 0 && tool("buildah", "--version") &&
  await isFile(BUSYBOX) && await isFile(CERTIFICATES) &&
  await isFile(`${root}.cache/tools/denort`);

/** Libraries that `program` and what it loads later need, with the loader, at the paths they have here. */
async function libraries(program: string): Promise<string[]> {
  const listed = (await output("ldd", [program])).matchAll(/(\/\S+) \(0x/g);
  const found = new Set([...listed].map((match) => match[1] ?? ""));
  const folder = [...found].find((path) => path.endsWith("/libc.so.6"))
    ?.replace(/\/[^/]*$/, "");
  for (
    const name of [
      "libm.so.6",
      "libdl.so.2",
      "libpthread.so.0",
      "librt.so.1",
      "libgcc_s.so.1",
    ]
  ) {
    found.add(`${folder}/${name}`);
  }
  return [...found];
}

async function place(tree: string, path: string, source = path): Promise<void> {
  await Deno.mkdir(`${tree}${path}`.replace(/\/[^/]*$/, ""), {
    recursive: true,
  });
  await Deno.copyFile(source, tree + path);
}

Deno.test({
  name: "Dockerfile builds an image whose manager runs a program and saves its files [needs buildah]",
  ignore: !usable,
  async fn() {
    using scratch = scratchFolder();
    const tools = scratch.path;
    const buildah = (...args: string[]) =>
      output("buildah", [
        "--root",
        `${tools}/root`,
        "--runroot",
        `${tools}/run`,
        "--storage-driver",
        "vfs",
        ...args,
      ]);

    async function commitBase(
      name: string,
      files: Readonly<Record<string, string>>,
    ): Promise<void> {
      const tree = `${tools}/${name.replaceAll(/\W/g, "_")}`;
      await Deno.mkdir(`${tree}/tmp`, { recursive: true });
      for (const path of await libraries(Deno.execPath())) {
        await place(tree, path);
      }
      for (const [path, source] of Object.entries(files)) {
        await place(tree, path, source);
      }
      const container = await buildah("from", "scratch");
      await buildah("copy", "--quiet", container, tree, "/");
      await buildah("config", "--env", "PATH=/usr/bin:/bin", container);
      await buildah("commit", "--quiet", "--rm", container, name);
      await Deno.remove(tree, { recursive: true });
    }
    await commitBase("docker.io/denoland/deno:2.9.6", {
      "/usr/bin/deno": Deno.execPath(),
      "/bin/sh": BUSYBOX,
    });
    await commitBase("gcr.io/distroless/cc-debian12:latest", {
      [CERTIFICATES]: CERTIFICATES,
    });

    const info = JSON.parse(await output(Deno.execPath(), ["info", "--json"]));
    const image = "state-manager";
    await buildah(
      ...[
        "bud",
        "--quiet",
        "--isolation",
        "chroot",
        "--pull-never",
        "--format",
        "docker",
        "--tag",
        image,
      ],
      ...[
        "--volume",
        `${info.denoDir}:/deno-dir`,
        "--volume",
        `${root}.cache:/source/.cache:ro`,
        root,
      ],
    );

    const { Docker } = JSON.parse(
      await buildah("inspect", "--type", "image", image),
    );
    const { config } = Docker;
    assert.deepEqual(config.Entrypoint, [
      "/usr/bin/state-manager",
      "run",
      "--",
    ]);
    assert.deepEqual(config.Healthcheck.Test, [
      "CMD",
      "/usr/bin/state-manager",
      "healthcheck",
    ]);
    assert.equal(
      config.Labels["org.opencontainers.image.licenses"],
      "Apache-2.0",
    );
    const { version } = JSON.parse(await Deno.readTextFile(`${root}deno.json`));
    assert.equal(config.Labels["org.opencontainers.image.version"], version);

    const container = await buildah("from", "--pull-never", image);
    const mounted = await buildah("mount", container);
    await Deno.mkdir(`${mounted}/srv/data`, { recursive: true });
    const inside = (...args: string[]) => buildah("run", "--isolation", "chroot", container, "--", ...args);
    const program = "/usr/bin/state-manager";
    const where = ["--directory", "/tmp/store"];
    const run = [
      "run",
      ...where,
      "--files",
      "data=/srv/data",
      "--",
      program,
      "version",
    ];
    assert.match(
      await inside(program, ...run),
      new RegExp(`state-manager ${version} \\(`),
    );
    const listed = JSON.parse(
      await inside(program, "checkpoint", "list", ...where, "--json"),
    );
    assert.equal(
      JSON.stringify(listed).includes('"kind":"stop"'),
      true,
      JSON.stringify(listed),
    );
    assert.ok(await isFile(`${mounted}${CERTIFICATES}`));
  },
});
