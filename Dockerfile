# The course and the suite with PyTorch's CPU build.
#   docker build -t gill-lite .
#   docker run --rm -it gill-lite make reproduce TABLES=1
#   docker run --rm -it gill-lite make test
#   docker run --rm -it -p 8888:8888 gill-lite make lab ARGS="--allow-root --no-browser --ip=0.0.0.0"
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends git make && rm -rf /var/lib/apt/lists/*
WORKDIR /gill-lite
COPY . .
RUN make install CPU=1
CMD ["make", "help"]
