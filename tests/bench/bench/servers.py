"""The origin, the gateway, its peers and the floor, each as a competent operator would run it on two cores."""

import os
import pathlib
import shutil

from .processes import Server, free_port, get

RIG = os.environ.get("BENCH_RIG", "")
THREADS = 2


class Origin(Server):
    title = "origin"

    def command(self):
        return [RIG, "origin", "--listen", f"127.0.0.1:{self.port}", "--threads", str(THREADS)]

    def count(self):
        """Requests that reached it."""
        return int(get(self.url("/count")).read())


class Gateway(Server):
    """hardtack with its defaults. `extra` is TOML besides that."""

    title = "hardtack"
    binary = None
    extra = ""
    storage = 'disk_free_min = "1KiB"'
    route = ""

    def __init__(self, directory, origin=None, **changes):
        super().__init__(directory, origin)
        self.admin_port = free_port()
        for name, value in changes.items():
            setattr(self, name, value)

    def command(self):
        config = self.directory / "gateway.toml"
        config.write_text(
            f"""\
[listen]
proxy = "127.0.0.1:{self.port}"
admin = "127.0.0.1:{self.admin_port}"
[storage]
dir = "{self.directory / 'data'}"
{self.storage}
[upstreams.origin]
url = "{self.origin.url('')}"
[[routes]]
name = "all"
upstream = "origin"
{self.route}
{self.extra}
"""
        )
        return [self.binary, "run", "--config", config]

    def metrics(self):
        """What it counts, by names with labels."""
        text = get(f"http://127.0.0.1:{self.admin_port}/metrics").read().decode()
        samples = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in samples}


class Nginx(Server):
    """proxy_cache with its files on a tmpfs, sendfile; without tcp_nopush, which stalls larger bodies on loopback."""

    title = "nginx"
    needs = "nginx"
    sending = "sendfile on;"
    listening = ""
    cache = """
proxy_cache c;
proxy_cache_key $host$request_uri;
proxy_cache_lock on;
proxy_cache_use_stale updating error timeout;
proxy_cache_background_update on;"""
    max_bytes = "4g"

    def command(self):
        cached = self.tmpfs()
        shutil.rmtree(cached, ignore_errors=True)
        cached.mkdir(parents=True)
        for directory in (cached, self.directory):
            directory.chmod(0o777)
        temporary = "\n".join(
            f"{kind}_temp_path {self.directory}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "scgi", "uwsgi")
        )
        config = self.directory / "nginx.conf"
        config.write_text(
            f"""\
daemon off;
user root;
pid {self.directory}/pid;
error_log {self.directory}/error.log;
worker_processes {THREADS};
worker_rlimit_nofile 65536;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  tcp_nodelay on;
  {self.sending}
  keepalive_requests 100000000;
  keepalive_timeout 600s;
  client_max_body_size 64m;
  {temporary}
  proxy_cache_path {cached} levels=1:2 keys_zone=c:256m max_size={self.max_bytes} inactive=6h use_temp_path=off;
  upstream origin {{ server 127.0.0.1:{self.origin.port}; keepalive 128; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{self.port} reuseport backlog=4096 {self.listening};
    location / {{
      proxy_pass http://origin;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_buffers 16 16k;
      proxy_buffer_size 16k;
      {self.cache}
    }}
  }}
}}
"""
        )
        return [find("nginx"), "-c", config]

    def tmpfs(self):
        return pathlib.Path("/dev/shm") / self.directory.parent.name / self.directory.name

    def kill(self, **how):
        super().kill(**how)
        shutil.rmtree(self.tmpfs(), ignore_errors=True)


class NginxBuffers(Nginx):
    """Without sendfile: better for small bodies."""

    title = "nginx, no sendfile"
    sending = "output_buffers 2 256k;"


class NginxPass(Nginx):
    """As a plain reverse proxy."""

    title = "nginx, no cache"
    cache = ""


class NginxHttp2(Nginx):
    title = "nginx, h2c"
    listening = "http2"

    def answers(self):
        return answers_tcp(self.port)


class Haproxy(Server):
    title = "HAProxy"
    needs = "haproxy"
    binding = ""
    caching = """
  http-request cache-use c
  http-response cache-store c"""

    def command(self):
        config = self.directory / "haproxy.cfg"
        config.write_text(
            f"""\
global
  nbthread {THREADS}
  maxconn 8192
defaults
  mode http
  timeout client 600s
  timeout server 60s
  timeout connect 5s
  timeout http-keep-alive 600s
  option http-keep-alive
  http-reuse always
cache c
  total-max-size 2048
  max-object-size 2000000
  max-age 3600
frontend f
  bind 127.0.0.1:{self.port} backlog 4096 {self.binding}
  {self.caching}
  default_backend o
backend o
  server s 127.0.0.1:{self.origin.port} pool-max-conn 256
"""
        )
        return [find("haproxy"), "-db", "-f", config]


class HaproxyPass(Haproxy):
    title = "HAProxy, no cache"
    caching = ""


class HaproxyHttp2(Haproxy):
    title = "HAProxy, h2c"
    binding = "proto h2"

    def answers(self):
        return answers_tcp(self.port)


class Varnish(Server):
    title = "Varnish"
    needs = "varnishd"
    malloc = "2g"

    def command(self):
        config = self.directory / "default.vcl"
        config.write_text(f'vcl 4.1;\nbackend default {{ .host = "127.0.0.1"; .port = "{self.origin.port}"; }}\n')
        work = self.directory / "work"
        work.mkdir(exist_ok=True)
        return [
            find("varnishd"), "-F", "-j", "none", "-n", work, "-a", f"127.0.0.1:{self.port},HTTP", "-T", "none",
            "-f", config, "-s", f"malloc,{self.malloc}", "-p", "thread_pools=2", "-p", "thread_pool_min=200",
            "-p", "thread_pool_max=1000", "-p", "timeout_idle=600",
        ]  # fmt: skip


class Floor(Server):
    """hyper on tokio's multi-thread runtime and a lookup in moka; nothing else."""

    title = "floor: hyper and moka"
    options = []

    def command(self):
        return [RIG, "floor", "--listen", f"127.0.0.1:{self.port}", "--threads", str(THREADS), *self.options]


class FloorPerCore(Floor):
    """The same with a runtime for each core."""

    title = "floor, a runtime per core"
    options = ["--per-core"]


class FloorHttp2(Floor):
    title = "floor, h2c"
    options = ["--http2"]

    def answers(self):
        return answers_tcp(self.port)


class FloorPlain(Server):
    """A loop without an HTTP library, for large bodies: head and body from memory, in one `writev`."""

    title = "floor: from memory, no HTTP library"
    options = []

    def command(self):
        return [RIG, "plain", "--listen", f"127.0.0.1:{self.port}", "--threads", str(THREADS), *self.options]


class FloorSendfile(FloorPlain):
    """The same with the bodies in files."""

    title = "floor: sendfile, no HTTP library"

    @property
    def options(self):
        return ["--sendfile", self.directory]


class FloorPass(Server):
    """hyper on both sides, and nothing in between."""

    title = "floor: hyper on both sides"

    def command(self):
        origin = f"127.0.0.1:{self.origin.port}"
        return [RIG, "pass", "--listen", f"127.0.0.1:{self.port}", "--origin", origin, "--threads", str(THREADS)]


def find(program):
    return shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin")


def answers_tcp(port):
    import socket

    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False
