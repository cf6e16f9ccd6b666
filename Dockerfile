# state-manager in an image of its binary, glibc's few libraries and CA certificates. Use it as the base of your image:
#   FROM state-manager
#   COPY my-server /usr/bin/
#   CMD ["my-server"]
# or copy the binary into another image with glibc: COPY --from=state-manager /usr/bin/state-manager /usr/bin/
ARG DENO_IMAGE=docker.io/denoland/deno:2.9.6
ARG BASE_IMAGE=gcr.io/distroless/cc-debian12:latest

FROM ${DENO_IMAGE} AS build
ENV DENO_DIR=/deno-dir DENO_NO_UPDATE_CHECK=1
WORKDIR /source
COPY . .
RUN deno install --frozen --entrypoint main.ts src/database/catalog_worker.ts \
 && deno run --allow-all tools/compile.ts --output /state-manager

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="state-manager" \
      org.opencontainers.image.description="The init for stateful programs in disposable containers" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
COPY --from=build /state-manager /usr/bin/state-manager
STOPSIGNAL SIGTERM
# Alive, not ready: a standby that waits for the lease, or a long restore, must not be restarted.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["/usr/bin/state-manager", "healthcheck"]
# The program follows as the image's CMD; the rest comes from the environment (docs/configuration.md).
ENTRYPOINT ["/usr/bin/state-manager", "run", "--"]
