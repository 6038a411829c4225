# The server on a CPU: `docker build -t rediffuse .`, then compose.yaml or the command in docs/server.md.
FROM python:3.12-slim AS build
RUN pip install --no-cache-dir uv
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE MANIFEST.in ./
COPY src src
# uv knows where PyTorch publishes its builds for CPUs; those that pip finds by itself bring 3 GB of CUDA.
RUN uv venv /opt/rediffuse \
    && uv pip install --python /opt/rediffuse --torch-backend cpu --compile-bytecode -c constraints.txt '.[web]' \
    && /opt/rediffuse/bin/python -c "import torch; assert torch.version.cuda is None, 'not the CPU build of torch'"

FROM python:3.12-slim
COPY --from=build /opt/rediffuse /opt/rediffuse
RUN useradd --uid 10001 --no-create-home rediffuse && install -d -o rediffuse -g rediffuse /data
ENV PATH=/opt/rediffuse/bin:$PATH HOME=/data HF_HOME=/data/cache PYTHONDONTWRITEBYTECODE=1
USER rediffuse
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["rediffuse", "serve", "--host", "0.0.0.0", "--folder", "/data/work"]
