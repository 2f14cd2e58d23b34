# recsys on processors, for a user without rights.
#   docker build -t recsys .                        nights and every other command; state in /state, the shop in /shop
#   docker build -t recsys-serve --target serve .   `recsys serve`, with a health check
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS build
# an index with builds of torch without CUDA, which make the image some GB smaller
ARG TORCH_INDEX=
ARG EXTRAS=offline,postgresql,redis,duckdb,s3
WORKDIR /build
# the libraries change seldom, so they are a layer that a new version of the code reuses
COPY pyproject.toml constraints.txt ./
COPY container/install.sh container/requirements.py container/
RUN TORCH_INDEX=${TORCH_INDEX} container/install.sh libraries /opt/recsys ${EXTRAS}
COPY README.md LICENSE ./
COPY features features
COPY pipelines pipelines
COPY recsys recsys
RUN container/install.sh recsys /opt/recsys

FROM python:${PYTHON} AS base
RUN useradd --uid 1000 --create-home recsys \
    && install --directory --owner=recsys --group=recsys /shop /state
COPY --from=build /opt/recsys /opt/recsys
COPY container/healthy.py /opt/recsys/bin/healthy.py
ENV PATH=/opt/recsys/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    XDG_STATE_HOME=/state/local \
    MLFLOW_DISABLE_TELEMETRY=true \
    PREFECT_SERVER_ANALYTICS_ENABLED=false
USER 1000:1000
WORKDIR /shop
ENTRYPOINT ["recsys"]

FROM base AS serve
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=6s --start-period=2m \
    CMD ["python", "/opt/recsys/bin/healthy.py", "http://127.0.0.1:8000/health"]
CMD ["serve", "/shop/recsys.toml", "--host", "0.0.0.0", "--set", "state_root=/state"]

FROM base AS night
CMD ["run", "/shop/recsys.toml", "--json", "--set", "state_root=/state"]
