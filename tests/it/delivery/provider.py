"""Plays Google's Terraform provider for `terraform validate`: it knows its schema, and does nothing.

Speaks version 6 of Terraform's plugin protocol
(https://github.com/hashicorp/terraform/tree/main/docs/plugin-protocol) to whoever started it.
Its argument is the file with what it answers when it is asked for its schema: Terraform waits a minute for
a provider to start, so the schema is read beforehand.
"""

import sys
import threading
from concurrent import futures

import grpc

SERVICE = "/tfplugin6.Provider/"


class Provider(grpc.GenericRpcHandler):
    def __init__(self, schema, stopped):
        self._schema = schema
        self._stopped = stopped

    def service(self, call):
        if call.method == "/plugin.GRPCController/Shutdown":
            return self._answer(b"", self._stopped.set)
        if call.method == SERVICE + "GetProviderSchema":
            return self._answer(self._schema)
        # Every other question of `validate` is whether the provider objects: it does not.
        if call.method.startswith(SERVICE + "Validate") or call.method == SERVICE + "StopProvider":
            return self._answer(b"")
        return None

    @staticmethod
    def _answer(body, then=lambda: None):
        def answer(_request, _context):
            then()
            return body

        return grpc.unary_unary_rpc_method_handler(answer)


def main():
    with open(sys.argv[1], "rb") as file:
        schema = file.read()
    stopped = threading.Event()
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[Provider(schema, stopped)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"1|6|tcp|127.0.0.1:{port}|grpc", flush=True)
    stopped.wait()
    server.stop(1).wait()


main()
