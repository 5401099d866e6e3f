# One image for coordinator, worker and dashboard. torch from the public registry brings CUDA.
FROM python:3.12-slim

WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY cubeopt ./cubeopt
RUN pip install --no-cache-dir '.[samplers]' \
    && useradd --uid 1000 --create-home cubeopt \
    && install -d -o cubeopt -g cubeopt /storage

USER cubeopt
ENV CUBEOPT_HOME=/storage
ENTRYPOINT ["cubeopt"]
CMD ["--help"]
