# rap-export and rap-calibrate, with PyTorch. See docs/docker.md.
FROM debian:bookworm-slim
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --create-home rap-edge
# What pip takes: pytorch.org names the arguments for its CPU build.
ARG TORCH=torch==2.13.0
WORKDIR /source
COPY . .
# hadolint ignore=DL3013,SC2086
RUN python3 -m venv /opt/rap-edge \
    && /opt/rap-edge/bin/pip install --no-cache-dir --no-compile ${TORCH} \
    && /opt/rap-edge/bin/pip install --no-cache-dir --no-compile '.[export,calibrate]'
ENV PATH=/opt/rap-edge/bin:$PATH
USER 10001
WORKDIR /home/rap-edge
HEALTHCHECK --interval=60s --timeout=30s CMD ["rap-doctor"]
ENTRYPOINT ["rap-export"]
CMD ["--help"]
