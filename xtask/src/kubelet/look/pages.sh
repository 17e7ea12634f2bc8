# One capability more, and the DaemonSet sees which pages of another user's process are there.

kubectl --namespace observer patch daemonset observer --type json --patch '[{"op": "add", "value": "DAC_READ_SEARCH",
    "path": "/spec/template/spec/containers/0/securityContext/capabilities/add/-"}]' >/dev/null
rolled "a DaemonSet with CAP_DAC_READ_SEARCH"
within 60 "it finds the pod's service" has "$node" '^observer_target_info.*pod="checkout",namespace="default"'
[ "$(line "$(process observer "$observer" observer)" CapEff)" = 000000c000080004 ] || fail "it has the four and no more"
quiet observer "$observer" observer
say "DaemonSet: with DAC_READ_SEARCH nothing is degraded"
