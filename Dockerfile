# One image for every part of Postroom; docker-compose.yml says which part a container is, and whose.
# Python and Debian are of the versions that the tests run on.
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip sh deploy/install.sh /src /opt/postroom

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="Postroom" \
      org.opencontainers.image.description="Sends an organisation's mail from its own mailboxes" \
      org.opencontainers.image.licenses="MIT"
# The numbers own the files in ./secrets (deploy/compose_keys.py), so they are fixed.
RUN groupadd --gid 10001 postroom-worker \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin postroom-worker \
 && groupadd --gid 10002 postroom-front \
 && useradd --uid 10002 --gid 10002 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin postroom-front
COPY --from=build /opt/postroom /opt/postroom
ENV PATH=/opt/postroom/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10002:10002
WORKDIR /
ENTRYPOINT ["postroom"]
