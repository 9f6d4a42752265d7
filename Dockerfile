# A small image: the binary, glibc, root certificates, and a user without privileges.
#
#   docker build -t hardtack .
#   docker run -p 8080:8080 -e HARDTACK_FORWARD__ENABLED=false -v hardtack:/var/lib/hardtack \
#     hardtack run --listen 0.0.0.0:8080 --upstream https://api.example.com
#
# Listening on every address with the forward proxy on, and without saying who may use it, is refused at start.

FROM rust:1-slim-bookworm AS build
WORKDIR /source
COPY . .
RUN cargo build --release --locked --bin hardtack && mkdir -m 0700 /data

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /source/target/release/hardtack /usr/local/bin/hardtack
# A new named volume takes owner and mode from here.
COPY --from=build --chown=65532:65532 /data /var/lib/hardtack
ENV HARDTACK_STORAGE__DIR=/var/lib/hardtack \
    HARDTACK_ADMIN=http://127.0.0.1:8081
VOLUME /var/lib/hardtack
USER 65532:65532
# The proxy. The admin API stays on the container's loopback unless listen.admin says otherwise.
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=3s --start-period=5s \
  CMD ["/usr/local/bin/hardtack", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/hardtack"]
CMD ["run", "--listen", "0.0.0.0:8080"]
