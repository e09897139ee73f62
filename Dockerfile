# One image for every service: the binary and the certificates of the system, nothing else. For amd64 and arm64, of which the other one
# is cross-compiled: nothing is emulated.
#
#   docker build --tag penstock:dev .
#   docker run --read-only penstock:dev --help
#   docker buildx build --platform linux/amd64,linux/arm64 --tag registry.example.com/penstock:dev --push .

FROM --platform=$BUILDPLATFORM node:22-bookworm-slim AS page
WORKDIR /ui
COPY crates/dashboard/ui/package.json crates/dashboard/ui/package-lock.json ./
RUN --mount=type=cache,target=/root/.npm npm install --no-save --no-audit --no-fund
COPY crates/dashboard/ui ./
RUN npm run build

FROM --platform=$BUILDPLATFORM rust:1.95-slim-bookworm AS build
ARG BUILDARCH TARGETARCH
WORKDIR /src
# The C compiler is for the cryptography (ring), and links.
RUN case "$TARGETARCH" in \
      amd64) triple=x86_64-unknown-linux-gnu gnu=x86-64-linux-gnu ;; \
      arm64) triple=aarch64-unknown-linux-gnu gnu=aarch64-linux-gnu ;; \
      *) echo "no image for $TARGETARCH: amd64 and arm64" >&2; exit 1 ;; \
    esac \
 && rustup target add "$triple" \
 && if [ "$TARGETARCH" != "$BUILDARCH" ]; then \
      apt-get update && apt-get install --yes --no-install-recommends "gcc-$gnu" "libc6-dev-$TARGETARCH-cross" \
      && rm -rf /var/lib/apt/lists/*; \
    fi \
 && echo "export CARGO_BUILD_TARGET=$triple" >/etc/target \
 && if [ "$TARGETARCH" != "$BUILDARCH" ]; then \
      tool="$(echo "$gnu" | sed 's/^x86-64/x86_64/')" \
      && echo "export CARGO_TARGET_$(echo "$triple" | tr 'a-z-' 'A-Z_')_LINKER=$tool-gcc CC_$(echo "$triple" | tr - _)=$tool-gcc STRIP=$tool-strip" >>/etc/target; \
    fi
COPY Cargo.toml Cargo.lock clippy.toml ./
COPY crates crates
COPY --from=page /ui/dist crates/dashboard/ui/dist
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target,id=target-$TARGETARCH \
    . /etc/target \
 && cargo build --locked --release -p penstock \
 && install -D "target/$CARGO_BUILD_TARGET/release/penstock" /out/penstock \
 && "${STRIP:-strip}" --strip-debug /out/penstock

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/penstock /usr/local/bin/penstock
# Nothing is written to the file system: it may be read-only, and any user may run it. 65532 is the one where nobody says otherwise.
USER 65532:65532
EXPOSE 8000 9464
# The binary is process 1: SIGTERM reaches it, and it ends in order within ten seconds.
ENTRYPOINT ["/usr/local/bin/penstock"]
CMD ["--help"]
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["/usr/local/bin/penstock", "healthcheck"]
