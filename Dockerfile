# One image for every service: the binary and the certificates of the system, nothing else.
#
#   docker build --tag penstock:dev .
#   docker run --read-only penstock:dev --help

FROM node:22-bookworm-slim AS page
WORKDIR /ui
COPY crates/dashboard/ui/package.json crates/dashboard/ui/package-lock.json ./
RUN --mount=type=cache,target=/root/.npm npm install --no-save --no-audit --no-fund
COPY crates/dashboard/ui ./
RUN npm run build

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock clippy.toml ./
COPY crates crates
COPY --from=page /ui/dist crates/dashboard/ui/dist
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --locked --release -p penstock \
 && install -D target/release/penstock /out/penstock \
 && strip --strip-debug /out/penstock

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/penstock /usr/local/bin/penstock
# Nothing is written to the file system: it may be read-only. 65532 is the image's own user.
USER 65532:65532
EXPOSE 8000 9464
# The binary is process 1: SIGTERM reaches it, and it ends in order within ten seconds.
ENTRYPOINT ["/usr/local/bin/penstock"]
CMD ["--help"]
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["/usr/local/bin/penstock", "healthcheck"]
