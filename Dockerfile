# dnnsplit-onnx for the CPU: every command, and servers of tiers.
#
#   docker build -t dnnsplit-onnx .
#   docker run --rm -v "$PWD:/work" dnnsplit-onnx plan model.onnx --tiers tiers.toml
FROM python:3.12-slim

COPY . /src
RUN pip install --no-cache-dir "/src[cpu]" -c /src/constraints.txt \
    && rm -rf /src \
    && useradd --create-home user

USER user
WORKDIR /work
ENTRYPOINT ["dnnsplit-onnx"]
CMD ["--help"]
