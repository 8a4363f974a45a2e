# The gateway in a small image: no root rights, no pip, a root file system that may be read-only.
#
#   docker build -t sluice .
#   docker run --read-only -p 8080:8080 -v sluice:/data -e UPSTREAM_URL=http://backend:8000 sluice

FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python -m venv --without-pip /opt/sluice
COPY requirements/build.txt requirements/run.txt requirements/
RUN pip --python /opt/sluice/bin/python install --require-hashes -r requirements/run.txt
RUN pip install --require-hashes -r requirements/build.txt
COPY pyproject.toml setup.cfg README.md LICENSE ./
COPY gateway gateway
RUN pip wheel --no-deps --no-build-isolation --wheel-dir dist . && \
    pip --python /opt/sluice/bin/python install --no-deps --no-index dist/*.whl

FROM python:3.13-slim
LABEL org.opencontainers.image.title="Sluice" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/sluice/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOST=0.0.0.0 \
    DATA_DIR=/data
COPY --from=build /opt/sluice /opt/sluice
RUN install -d -o 10001 -g 10001 /data
VOLUME /data
USER 10001:10001
EXPOSE 8080
# Any answer below 500 is life: ALLOWED_HOSTS may refuse this Host. Behind TLS or on a socket, set another.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('PORT') or 8080), timeout=2); c.request('GET', '/livez'); sys.exit(c.getresponse().status >= 500)"]
# In exec form, so that SIGTERM reaches the gateway and it drains.
ENTRYPOINT ["sluice"]
CMD ["serve"]
