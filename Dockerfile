# The example application in a container. A server that others can reach refuses to start without
# authentication, so give it a key:
#
#   docker build -t nexus .
#   docker run --rm -p 127.0.0.1:8000:8000 -v nexus-data:/data -e NEXUS_API_KEY=choose-a-secret nexus
#
# Its data is an SQLite file in the volume /data; -e DATABASE_URL=postgresql://... uses a server instead.

FROM python:3.13-slim AS build
WORKDIR /source
COPY . .
RUN python -m venv /opt/nexus \
    && /opt/nexus/bin/pip install --no-cache-dir --disable-pip-version-check .

FROM python:3.13-slim
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /data nexus \
    && install --directory --owner=nexus --group=nexus /data
COPY --from=build /opt/nexus /opt/nexus
COPY examples/shop /app/examples/shop

ENV PATH=/opt/nexus/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    DATABASE_URL=sqlite:////data/shop.db
WORKDIR /data
VOLUME /data
# By number, so that an orchestrator can see that it is not root.
USER 10001:10001
EXPOSE 8000

HEALTHCHECK --interval=30s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/livez', timeout=4)"]

CMD ["nexus", "--app", "/app/examples/shop/app.py", "serve", "--host", "0.0.0.0"]
