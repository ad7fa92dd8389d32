# The image of Tidegate: one binary, no shell, no root.
#
#   docker build -t tidegate:0.0.0 .

FROM rust:1.95-bookworm AS build
# cmake is for aws-lc, the cryptography under rustls. Not pinned: bookworm gets only fixes, and an old pin cannot be installed.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --no-install-recommends -y cmake \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# Shown by the metric tidegate_build_info: --build-arg TIDEGATE_COMMIT="$(git rev-parse HEAD)"
ARG TIDEGATE_COMMIT=""
# The caches outlive the step, so the binary has to be copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package tidegate \
    && cp target/release/tidegate /tidegate

# distroless/cc and not debian-slim: the binary needs glibc and libgcc and nothing else, so there is no shell, package
# manager or setuid program in the image that an attacker could use or a scanner report. It is built from the same Debian
# release as the binary, so the glibc fits. Trusted CA certificates are in it.
FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="tidegate" \
      org.opencontainers.image.description="Kubernetes ingress controller and sidecar load balancer" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /tidegate /tidegate
# By number, since Kubernetes cannot tell that a name is not root (runAsNonRoot).
USER 65532:65532
# HTTP, HTTPS, and metrics with health. Nothing is written to disk, so the root may be read-only.
EXPOSE 8080 8443 10254
ENTRYPOINT ["/tidegate"]
