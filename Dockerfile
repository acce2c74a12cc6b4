# An image that serves one bundle: no torch, no compiler, not root. From the project's folder, after `luodi run`:
#
#   docker build --build-arg BUNDLE=runs/digits/bundle --build-arg NAME=digits --tag digits .
#   docker run --rm --read-only --publish 127.0.0.1:8000:8000 digits
#
# RUNTIME is what opens the form that the bundle serves: onnxruntime, openvino, or torch for a bundle without forms.
FROM python:3.11-slim

ARG RUNTIME=onnxruntime
WORKDIR /luodi
COPY constraints.txt pyproject.toml README.md LICENSE ./
RUN pip install --no-cache-dir --constraint constraints.txt \
        numpy safetensors pydantic pyyaml pillow \
        fastapi uvicorn uvloop httptools prometheus-client python-multipart "$RUNTIME"
COPY src src
RUN pip install --no-cache-dir --no-deps --constraint constraints.txt . \
    && useradd --system --no-create-home luodi

# The server is named after the folder that the bundle lies in.
ARG NAME=bundle
ARG BUNDLE
WORKDIR /served/$NAME
COPY $BUNDLE .
USER luodi

EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health/ready', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["luodi", "serve", ".", "--host", "0.0.0.0", "--port", "8000"]
