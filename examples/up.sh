# Serves the upper tiers of `slices` on this machine until the script ends; their address is in $url.
serve_here() {
    dnnsplit-onnx up slices --provider cpu "$@" > up.log 2>&1 &
    server=$!
    trap 'kill $server 2> /dev/null; wait $server 2> /dev/null || true' EXIT
    until url=$(grep -om1 'http://[0-9.:]*' up.log); do
        kill -0 $server || { cat up.log; exit 1; }
        sleep 0.2
    done
}
