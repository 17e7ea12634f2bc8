# components/nonroot: in the sidecar of a Deployment, and in the DaemonSet.

kubectl --namespace shop rollout status deployment/checkout --timeout 90s >/dev/null || fail "the Deployment is ready"
replica=$(pod shop app=checkout)
address=$(of shop "$replica" .status.podIP)
within 60 "the sidecar of a replica finds its service" \
    has "$address" "^observer_target_info.*pod=\"$replica\",namespace=\"shop\",container=\"checkout\""
[ "$(of shop "$replica" '.spec.containers[0].name')" = checkout ] || fail "the service's container is the first"
least shop "$replica" observer 10001
memory shop "$replica" observer
quiet shop "$replica" observer

render "$top/deploy/kubernetes/overlays/nonroot" | kubectl apply -f - >/dev/null
rolled overlays/nonroot
within 60 "not as root it finds the same" has "$node" '^observer_target_info.*pod="checkout",namespace="default"'
least observer "$observer" observer 65532
within 90 "and suspects the leak" has "$node" '^observer_leak_suspected\{target="checkout@[^"]*"\} 1'
quiet observer "$observer" observer "$pages"
memory observer "$observer" observer

began=$SECONDS
kubectl delete pod checkout >/dev/null
[ $((SECONDS - began)) -lt 20 ] || fail "a pod with the sidecar ends when it is told to, not at the end of its grace"
say "checkout: ended $((SECONDS - began)) s after it was told to"
