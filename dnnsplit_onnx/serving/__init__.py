"""A chain of slices across machines.

    protocol.py    the Open Inference Protocol: tensors to bytes and back
    grpc_server.py its gRPC form, beside HTTP
    http.py        heads of HTTP/1.1 messages, parsed strictly
    stream.py      sockets with deadlines, plain and TLS
    server.py      connections, bounded in number, size and time
    service.py     the protocol's paths
    engine.py      what runs a tier: `stage` in this process, `replicas` on Ray (`ray_engine`)
    stage.py       the slices of one tier, ready to run
    routes.py      what crosses each link for given cuts
    remote.py      the next tier, seen from below
    edge.py        tier 0: the client that runs its slice and sends the rest on
    estimate.py    bandwidth and delay of a link, from its traffic
    adaptive.py    new cuts when an estimate moves
    history.py     what the requests did lately; `dashboard` shows it in a browser

Everything here takes a manifest. Only `adaptive` knows of plans.
"""
