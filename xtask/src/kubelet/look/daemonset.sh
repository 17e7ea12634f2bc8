# The DaemonSet of deploy/kubernetes/base, as it is shipped.

rolled base

# called NAMESPACE POD CONTAINER: what the DaemonSet calls the process of a container
called() {
    local uid
    uid=$(of "$1" "$2" .metadata.uid)
    metrics "$node" | grep '^observer_target_info' | grep -F "target=\"checkout@${uid:0:12}" | grep -F "container=\"$3\"" |
        sed -E 's/.*target="([^"]*)".*/\1/'
}
found() { limited=$(called shop limited service) && [ -n "$limited" ]; }
within 60 "the DaemonSet finds the service with a limit" found
info=$(metrics "$node" | grep "^observer_target_info.*target=\"$limited\"")
for label in 'pod="limited"' 'namespace="shop"' 'container="service"'; do
    grep -q "$label" <<<"$info" || fail "the DaemonSet knows $label: $info"
done
has "$node" "^observer_memory_limit_bytes\{target=\"$limited\"\} 805306368" ||
    fail "the limit is the container's: $(metrics "$node" | grep '^observer_memory_limit_bytes')"
within 90 "the DaemonSet suspects its leak" has "$node" "^observer_leak_suspected\{target=\"$limited\"\} 1"
site=$(metrics "$node" | grep "^observer_leak_growth_bytes_per_second.*target=\"$limited\"" | sed -n 1p)
case $site in *quote.go:57*) ;; *) fail "the DaemonSet names quote.go:57: $site" ;; esac
for pod in default/checkout/observer default/checkout/load shop/tight/service; do
    IFS=/ read -r space name container <<<"$pod"
    has "$node" "^observer_target_info.*pod=\"$name\",namespace=\"$space\",container=\"$container\"" ||
        fail "the DaemonSet knows $pod: $(metrics "$node" | grep '^observer_target_info')"
done
# It began together with the pods, when containers were the runtime's first process still.
! has "$node" 'target="runc' || fail "nothing is called after the runtime: $(metrics "$node" | grep 'target="runc')"
say "DaemonSet: $(metrics "$node" | grep -c '^observer_target_info') targets, each with pod, namespace and container; the leak at quote.go:57 found"

oom() { [ "$(status shop tight service .lastState.terminated.reason)" = OOMKilled ]; }
within 90 "the service with a tight limit reaches it" oom
tight=$(called shop tight service | sed -n 1p)
within 90 "the DaemonSet follows the one that was killed" \
    has "$node" "^observer_target_restarts_total\{target=\"$tight\"\} [1-9]"
say "DaemonSet: follows the restart of a service that was killed at its memory limit"
least observer "$observer" observer 0
quiet observer "$observer" observer "$pages"
