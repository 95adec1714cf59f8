# simcse serve on CPUs. The image contains the included encoders; mount other models and indexes:
#
#   docker build --tag simcse .
#   docker run --publish 127.0.0.1:8000:8000 simcse serve small --host 0.0.0.0 --no-key
#
# Any other command of simcse runs in it too. docs/serve.md describes keys and compose.yaml.
FROM python:3.12-slim AS build
ARG TORCH=torch==2.13.0
ARG EXTRAS=serve
RUN python -m venv /opt/simcse
ENV PATH=/opt/simcse/bin:$PATH
# Torch is installed first and alone, so that only torch is looked up in its own index.
RUN pip install --no-cache-dir --no-deps \
    --extra-index-url https://download.pytorch.org/whl/cpu "$TORCH"
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY simcse_kit simcse_kit
RUN pip install --no-cache-dir ".[$EXTRAS]"

FROM python:3.12-slim
COPY --from=build /opt/simcse /opt/simcse
RUN useradd --uid 10001 --create-home simcse && install --directory --owner=simcse /data
# Caches that any user of the container can write, also with a read-only file system.
ENV PATH=/opt/simcse/bin:$PATH HF_HOME=/tmp/huggingface SIMCSE_CACHE=/tmp/simcse
USER 10001
WORKDIR /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=2m \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health/ready', timeout=4)"]
ENTRYPOINT ["simcse"]
# Refused as it is, with the choice between --api-key-file FILE and --no-key.
CMD ["serve", "small", "--host", "0.0.0.0"]
