# kubectl debug. In 1.20 an ephemeral container has no security context and so no capability of ours: where it is of
# the service's own user it may read its memory all the same, and finds the leak without eBPF.

kubectl debug --namespace shop limited --image=localhost/observer:dev --target=service --container=look --attach=false \
    -- observer attach 1 --duration 30s >/dev/null || fail "an ephemeral container is taken"
looked() { [ -n "$(of shop limited ".status.ephemeralContainerStatuses[0].state.terminated.reason")" ]; }
within 90 "the ephemeral container ends" looked
said=$(kubectl logs --namespace shop limited -c look)
[ "$(of shop limited ".status.ephemeralContainerStatuses[0].state.terminated.exitCode")" = 0 ] ||
    fail "the ephemeral container ends well: $said"
grep -q '^LEAK .*quote.go:57' <<<"$said" || fail "an ephemeral container finds the leak: $said"
say "kubectl debug: attach 1 as the service's user, without capabilities: $(grep -m 1 LEAK <<<"$said")"

# And the DaemonSet lets go of a pod that is gone.
kubectl delete pod --namespace shop limited >/dev/null
within 45 "the DaemonSet sees the pod go" has "$node" "^observer_target_up\{target=\"$limited\"\} 0"
say "DaemonSet: sees a pod go"
memory observer "$observer" observer
