# One image with both commands: ipmp-agent (with ipmpstat) and ipmp-operator. The chart says which one runs.
# Python's packages are those of image-requirements.txt, by their hashes. Debian's are those of the base and of its
# mirror: a site that needs the same ones for good names a base by digest, with that snapshot in its sources.list.
ARG BASE=docker.io/library/debian:trixie-slim
# The same for the machine that builds, and that machine's platform, where the builder does not say it by itself.
ARG BUILD_BASE=${BASE}
ARG BUILDPLATFORM

FROM ${BASE} AS python
ARG DEBIAN_FRONTEND=noninteractive
# Python runs without docstrings and assertions, 1.3 MiB less for each process. Bytecode for that is written now: the
# pods' root file systems are read-only.
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends python3 \
 && python3 -m compileall -q -o 2 /usr/lib/python3* \
 && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*

# Python's packages are chosen for the target, and put in place by this machine: nothing but apt runs emulated.
FROM --platform=${BUILDPLATFORM} ${BUILD_BASE} AS build
ARG DEBIAN_FRONTEND=noninteractive
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv
# A site with its own index, or a proxy with its own CA, says so with --build-arg.
ARG PIP_INDEX_URL
ARG PIP_CERT
# Two environments: pip lives in the first and installs into the second, which goes into the image without it.
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/ipmp
WORKDIR /src
COPY image-requirements.txt ./
# As builders name it; the classic one of Docker knows no other target than its own machine.
ARG TARGETARCH
# Wheels only, so nothing is compiled but Python; their commands, which nobody needs, would be those of /opt/pip.
RUN case "${TARGETARCH:=$(dpkg --print-architecture)}" in amd64) machine=x86_64 ;; arm64) machine=aarch64 ;; \
      *) echo "there are no wheels for $TARGETARCH" >&2; exit 1 ;; esac \
 && site=$(echo /opt/ipmp/lib/python3*/site-packages) \
 && /opt/pip/bin/pip install --no-cache-dir --no-compile --only-binary :all: --require-hashes --target "$site" \
      --platform "manylinux_2_28_$machine" --platform "manylinux_2_17_$machine" --platform "manylinux2014_$machine" \
      --requirement image-requirements.txt \
 && rm -rf "$site/bin"
COPY pyproject.toml README.md LICENSE ./
COPY crds ./crds
COPY common ./common
COPY node-agent ./node-agent
COPY operator ./operator
RUN /opt/pip/bin/pip --python /opt/ipmp/bin/python install --no-cache-dir --no-compile --no-deps . \
 && own=$(dpkg --print-architecture) \
 && { [ "${TARGETARCH:-$own}" != "$own" ] || /opt/pip/bin/pip --python /opt/ipmp/bin/python check; } \
 && python3 -m compileall -q -o 2 /opt/ipmp/lib

FROM python
ARG DEBIAN_FRONTEND=noninteractive
# For people who look at a node through the agent's pod: `kubectl ipmp bundle` asks them. 6 MB.
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends iproute2 nftables \
 && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*
LABEL org.opencontainers.image.title="ipmp" \
      org.opencontainers.image.description="IP network multipathing for Kubernetes nodes" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/ipmp /opt/ipmp
# One malloc arena for all threads, of which one runs at a time anyway: 0.3 MiB less for each process.
ENV PATH=/opt/ipmp/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONOPTIMIZE=2 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MALLOC_ARENA_MAX=1
# The operator's user. The agent's pod asks for root: its network capabilities need it.
USER 65532:65532
CMD ["ipmp-agent", "--help"]
