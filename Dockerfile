# The runtime on CPUs: rap-serve and rap-run, without PyTorch. See docs/docker.md.
FROM debian:bookworm-slim AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN python3 -m venv /opt/rap-edge \
    && /opt/rap-edge/bin/pip install --no-cache-dir --no-compile '.[serve]' \
    && /opt/rap-edge/bin/pip uninstall --yes pip setuptools

FROM debian:bookworm-slim
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --create-home rap-edge
COPY --from=build /opt/rap-edge /opt/rap-edge
ENV PATH=/opt/rap-edge/bin:$PATH
USER 10001
WORKDIR /home/rap-edge
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python3", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
ENTRYPOINT ["rap-serve"]
# Other hosts need a secret: RAP_SERVE_TOKEN.
CMD ["--bundle", "/bundle", "--host", "0.0.0.0"]
