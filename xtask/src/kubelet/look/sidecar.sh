# examples/pod.yaml: observer, as root, beside a service of another user.

within 90 "the example pod runs" is default checkout .status.phase Running
address=$(of default checkout .status.podIP)
within 60 "the sidecar serves its metrics" has "$address" '^observer_build_info'
within 120 "the sidecar suspects a leak" has "$address" '^observer_leak_suspected\{target="checkout"\} 1'
began=$(date -d "$(status default checkout checkout .state.running.startedAt)" +%s)
site=$(metrics "$address" | grep '^observer_leak_growth_bytes_per_second' | sed -n 1p)
case $site in *quote.go:57*) ;; *) fail "the sidecar names quote.go:57: $site" ;; esac
say "checkout: the sidecar suspects the leak at quote.go:57, $(($(date +%s) - began)) s after the service began"

least default checkout observer 0
memory default checkout observer
service=$(process default checkout checkout)
inside=$(awk '$1 == "NSpid:" { print $NF }' "/proc/$service/status")
target="$(metrics "$address" | grep '^observer_target_info')"
for label in "pid=\"$inside\"" 'pod="checkout"' 'namespace="default"' 'container="checkout"'; do
    grep -q "$label" <<<"$target" || fail "it knows its service by $label: $target"
done
say "checkout: pid $inside in the pod, pod, namespace and container are named"
quiet default checkout observer "$pages"

kubectl port-forward pod/checkout 9713 >/dev/null &
forward=$!
page() { curl --silent --fail http://127.0.0.1:9713 | grep '<title>' >/dev/null; }
within 20 "the page is forwarded" page
kill $forward
wait $forward || true
say "checkout: its page by kubectl port-forward"

kill -9 "$service"
again() { [ "$(status default checkout checkout .restartCount)" = 1 ]; }
within 60 "the service is started again" again
within 60 "the sidecar follows the restart" has "$address" '^observer_target_restarts_total\{target="checkout"\} 1'
within 60 "and says it is up" has "$address" '^observer_target_up\{target="checkout"\} 1'
say "checkout: the sidecar follows a restart of its service"
