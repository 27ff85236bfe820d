# sesurgery on a CPU: ONNX Runtime, OpenVINO and torch's compiler. Build it in a checkout:
#   docker build -t sesurgery .
#   docker run --rm -v "$PWD:/workspace" --user "$(id -u):$(id -g)" sesurgery plan zoo:seresnet50
ARG PYTHON=3.12
FROM python:${PYTHON}-slim AS wheel
WORKDIR /source
COPY . .
RUN pip install --no-cache-dir -c constraints.txt build \
    && python -m build --wheel --outdir /dist

FROM python:${PYTHON}-slim
# torch's compiler calls g++ (backend: inductor).
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
COPY constraints.txt /tmp/
COPY --from=wheel /dist /tmp/dist
# Wheels of torch without CUDA: a fifth of the size.
RUN pip install --no-cache-dir -c /tmp/constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu \
        "torch==2.15.0+cpu" "torchvision==0.29.2+cpu" \
    && pip install --no-cache-dir -c /tmp/constraints.txt "$(echo /tmp/dist/*.whl)[openvino,huggingface]" \
    && rm -rf /tmp/dist /tmp/constraints.txt
# Whoever runs it: caches, and the key that seals what is made, lie in a home that can be written to.
ENV HOME=/tmp/home
RUN mkdir -p /tmp/home /workspace \
    && chmod 1777 /tmp/home /workspace
WORKDIR /workspace
USER 1000:1000
ENTRYPOINT ["sesurgery"]
CMD ["--help"]
