# syntax=docker/dockerfile:1
# One image for every role: `docker run IMAGE` is `nucleus up` on the volume /data, and `serve`, `work`,
# `tick` and `migrate` are arguments. What is compiled seldom (the dependencies) has a layer of its own.

FROM rust:1.95-slim-bookworm AS chef
RUN cargo install cargo-chef --locked --version 0.1.78
WORKDIR /src

# What the dependencies are; changes only with the manifests.
FROM chef AS planner
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

FROM chef AS builder
COPY --from=planner /src/recipe.json recipe.json
RUN cargo chef cook --release --locked --recipe-path recipe.json
COPY . .
RUN cargo build --release --locked --bin nucleus

FROM debian:bookworm-slim
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="nucleus" \
      org.opencontainers.image.description="Reaches a person's digital footprint: connections, credentials and event-driven ingestion" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# The authorities that vouch for Google and the database. They are to be today's, so no version is named.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
# A number, so that platforms which refuse root can see that it is not; the vault wants a folder of its own.
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin nucleus \
    && install -d -o nucleus -g nucleus -m 0700 /data
COPY --from=builder /src/target/release/nucleus /usr/local/bin/nucleus
USER 10001
# With PORT alone set, as on Cloud Run, the API listens on every address of the container.
ENV NUCLEUS_DATA_DIR=/data PORT=8080
VOLUME /data
EXPOSE 8080
# Of `up` and `serve`; the other roles bind no port, and who runs them turns this off.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/${PORT} && printf 'GET /livez HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && read -r answer <&3 && [[ $answer == *' 200 '* ]]"]
ENTRYPOINT ["nucleus"]
CMD ["up"]
