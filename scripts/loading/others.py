"""The peers that aren't ours, each with one worker, without buffering and without time-outs."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from scripts.loading.start import NotInstalled, Start
from scripts.loading.targets import Target

ROOT = Path(__file__).resolve().parents[2]
#: Where `scripts/bench-setup` puts them.
PEERS = ROOT / ".cache" / "peers"

_NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr warn;
worker_rlimit_nofile {files};
events {{ worker_connections {files}; }}
http {{
  access_log off; keepalive_requests 1000000; client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u;
  scgi_temp_path {folder}/s;
  upstream backend {{ server {backend}; keepalive 64; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=8192 reuseport;
    location / {{
      proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_read_timeout 1h; proxy_send_timeout 1h;
    }}
  }}
}}
"""


def nginx(upstream: str, port: int, folder: Path) -> Start:
    program = _program("nginx")
    backend = Target(upstream)
    config = folder / "nginx.conf"
    config.write_text(
        _NGINX.format(
            folder=folder, files=16384, backend=f"{backend.host}:{backend.port}", port=port
        )
    )
    return Start([program, "-p", str(folder), "-c", str(config)])


def envoy(upstream: str, port: int, folder: Path) -> Start:
    program = _program("envoy")
    config = folder / "envoy.json"
    config.write_text(json.dumps(_envoy_config(Target(upstream), port)))
    options = ["--concurrency", "1", "--log-level", "error", "--disable-hot-restart"]
    return Start([program, "-c", str(config), *options])


def _envoy_config(backend: Target, port: int) -> dict[str, object]:
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": _type("filters.http.router.v3.Router")},
    }
    route = {"match": {"prefix": "/"}, "route": {"cluster": "backend", "timeout": "0s"}}
    manager = {
        "@type": _type("filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "load",
        "stream_idle_timeout": "0s",
        "route_config": {
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}],
        },
        "http_filters": [router],
    }
    listener = {
        "name": "front",
        "address": _address("127.0.0.1", port),
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": manager,
                    }
                ]
            }
        ],
    }
    many = dict.fromkeys(("max_connections", "max_requests", "max_pending_requests"), 100_000)
    endpoint = {"endpoint": {"address": _address(backend.host, backend.port)}}
    cluster = {
        "name": "backend",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [many]},
        "load_assignment": {
            "cluster_name": "backend",
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _type(name: str) -> str:
    return f"type.googleapis.com/envoy.extensions.{name}"


def _address(host: str, port: int) -> dict[str, object]:
    return {"socket_address": {"address": host, "port_value": port}}


def litellm(upstream: str, port: int, folder: Path) -> Start:
    program = _program("litellm")
    config = folder / "litellm.json"
    parameters = {"model": "openai/load", "api_base": f"{upstream}/v1", "api_key": "unused"}
    models = [{"model_name": "load", "litellm_params": parameters}]
    settings = {"request_timeout": 3600, "set_verbose": False, "telemetry": False}
    config.write_text(json.dumps({"model_list": models, "litellm_settings": settings}))
    options = ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    environment = {
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        # Without a key it checks none, as nobody else here does.
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    }
    return Start([program, "--config", str(config), *options], environment, folder)


def portkey(upstream: str, port: int, folder: Path) -> Start:
    module = PEERS / "portkey/node_modules/@portkey-ai/gateway/build/start-server.js"
    if not module.exists():
        raise NotInstalled("portkey isn't installed; scripts/bench-setup installs it")
    command = [_program("node"), str(module), "--headless", f"--port={port}"]
    return Start(command, {"NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": "127.0.0.1"}, folder)


def portkey_headers(upstream: str) -> dict[str, str]:
    """Portkey is told by each request where to go."""
    return {
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"{upstream}/v1",
        "Authorization": "Bearer unused",
    }


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{PEERS}/bin:{os.environ['PATH']}:/usr/sbin")
    if found is None:
        raise NotInstalled(f"{name} isn't installed; scripts/bench-setup installs it")
    return found
