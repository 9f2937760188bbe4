# docker build -t fastfcn_pl .                                                                      for CPUs
# docker build -t fastfcn_pl --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .       for CUDA
# docker run --rm --shm-size 8g -v "$PWD:/work" fastfcn_pl train -cn quickstart                     add --gpus all for CUDA
FROM python:3.12-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir torch torchvision --index-url "$TORCH_INDEX"

WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY conf conf
COPY experiments experiments
COPY fastfcn_pl fastfcn_pl
RUN pip install --no-cache-dir --constraint constraints.txt '.[lite,fast,export,video]'

RUN useradd --create-home user && mkdir /work && chown user /work
USER user
WORKDIR /work
ENTRYPOINT ["fastfcn"]
CMD ["--help"]
