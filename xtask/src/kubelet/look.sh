#!/bin/bash
# What must be true on a real node: look.sh IMAGES TOP. IMAGES holds archives (*.tar), TOP is the checkout.
#
# The example pod and the DaemonSet as they are shipped, with a load beside the pod's service.
set -euo pipefail
images=$1 top=$2
ctr=(ctr --address /run/containerd/containerd.sock --namespace k8s.io)

say() { printf '  %s\n' "$*"; }
fail() {
    echo "not so: $*" >&2
    kubectl get pods --all-namespaces -o wide >&2 || true
    kubectl describe pods --all-namespaces 2>&1 | tail -n 40 >&2 || true
    kubectl logs checkout -c observer 2>&1 | tail -n 20 >&2 || true
    exit 1
}
# within SECONDS WHAT COMMAND...
within() {
    local seconds=$1 what=$2
    shift 2
    for ((i = 0; i < seconds; i++)); do
        "$@" && return
        sleep 1
    done
    fail "$what, within $seconds s"
}

for image in "$images"/*.tar; do "${ctr[@]}" images import "$image" >/dev/null; done

# The example, and a container that puts load on its service, which listens on a fixed port for that.
python3 - "$top/deploy/kubernetes/examples/pod.yaml" <<'END' | kubectl apply -f - >/dev/null
import sys
text = open(sys.argv[1]).read()
old = "args: [serve, --for, 1h]"
assert text.count(old) == 1, "the example has changed"
text = text.replace(old, 'args: [serve, --for, 1h, --listen, "127.0.0.1:8080"]')
print(text.rstrip())
print("""    - name: load
      image: localhost/checkout:dev
      args: [load, --target, "127.0.0.1:8080", --for, 1h]
      securityContext: {runAsUser: 10002, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}""")
END
within 90 "the example pod runs" sh -c '[ "$(kubectl get pod checkout -o jsonpath="{.status.phase}")" = Running ]'
address=$(kubectl get pod checkout -o jsonpath='{.status.podIP}')
say "kubelet $(kubectl get node node -o jsonpath='{.status.nodeInfo.kubeletVersion}, {.status.nodeInfo.containerRuntimeVersion}, Linux {.status.nodeInfo.kernelVersion}')"

# The process of a container, as the node has it.
process() {
    local id
    id=$(kubectl get pod "$2" --namespace "$1" -o jsonpath="{.status.containerStatuses[?(@.name=='$3')].containerID}")
    grep -l "${id##*/}" /proc/[0-9]*/cgroup 2>/dev/null | head -n 1 | cut -d / -f 3
}
metrics() { curl --silent --fail --max-time 5 "http://$1:9713/metrics"; }
has() { metrics "$1" | grep -E -q "$2"; }

within 60 "the sidecar serves its metrics" metrics "$address" >/dev/null
within 90 "the sidecar suspects a leak" has "$address" '^observer_leak_suspected\{target="[^"]*"\} 1'
site=$(metrics "$address" | grep '^observer_leak_growth_bytes_per_second' | head -n 1)
case $site in *quote.go:*) ;; *) fail "the sidecar names quote.go: $site" ;; esac
say "sidecar: $site"

observer=$(process default checkout observer)
service=$(process default checkout checkout)
capabilities=$(awk '$1 == "CapEff:" { print $2 }' "/proc/$observer/status")
# CAP_SYS_PTRACE (19), CAP_PERFMON (38), CAP_BPF (39)
[ "$capabilities" = 000000c000080000 ] || fail "observer has the three capabilities and no others: $capabilities"
filter=$(awk '$1 == "Seccomp:" { print $2 }' "/proc/$observer/status")
[ "$filter" = 2 ] || fail "a seccomp filter is in force: $filter"
user=$(awk '$1 == "Uid:" { print $2 }' "/proc/$service/status")
[ "$user" = 10001 ] || fail "the service runs as another user: $user"
inside=$(awk '$1 == "NSpid:" { print $NF }' "/proc/$service/status")
metrics "$address" | grep '^observer_target_info' | grep -q "pid=\"$inside\"" ||
    fail "the pid is the pod's ($inside): $(metrics "$address" | grep '^observer_target_info')"
metrics "$address" | grep '^observer_target_info' | grep -q 'pod="checkout"' || fail "the pod is named"
resident=$(awk '$1 == "VmRSS:" { print int($2 / 1024) }' "/proc/$observer/status")
say "sidecar: CapEff $capabilities, seccomp filter in force, no ambient rights; its service is uid $user, pid $inside in the pod; $resident MiB resident"

kill -9 "$service"
within 60 "the service is started again" sh -c \
    '[ "$(kubectl get pod checkout -o jsonpath="{.status.containerStatuses[?(@.name==\"checkout\")].restartCount}")" = 1 ]'
within 60 "the sidecar follows the restart" has "$address" '^observer_target_restarts_total\{target="[^"]*"\} 1'
say "sidecar: follows a restart of its service"

kubectl kustomize "$top/deploy/kubernetes/base" >/dev/null || fail "the base is built"
kubectl apply -k "$top/deploy/kubernetes/base" >/dev/null
kubectl --namespace observer rollout status daemonset/observer --timeout 90s >/dev/null || fail "the DaemonSet is ready"
pod=$(kubectl --namespace observer get pods -o jsonpath='{.items[0].metadata.name}')
address=$(kubectl --namespace observer get pod "$pod" -o jsonpath='{.status.podIP}')
within 60 "the DaemonSet finds the pod's service" has "$address" '^observer_target_info\{.*pod="checkout"'
within 90 "the DaemonSet suspects the leak" has "$address" '^observer_leak_suspected\{target="[^"]*checkout[^"]*"\} 1'
observer=$(process observer "$pod" observer)
capabilities=$(awk '$1 == "CapEff:" { print $2 }' "/proc/$observer/status")
[ "$capabilities" = 000000c000080000 ] || fail "the DaemonSet has the three capabilities and no others: $capabilities"
say "DaemonSet: $(metrics "$address" | grep -c '^observer_target_info') targets, the leak found, CapEff $capabilities"
