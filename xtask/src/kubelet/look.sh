#!/bin/bash
# What must be true on a real node: look.sh IMAGES TOP. IMAGES holds archives (*.tar), TOP is the checkout, KUSTOMIZE a
# kubectl that renders what is in it: that of 1.20 knows no components.
set -euo pipefail
images=$1 top=$2
ctr=(ctr --address /run/containerd/containerd.sock --namespace k8s.io)
# CAP_SYS_PTRACE (19), CAP_PERFMON (38), CAP_BPF (39)
three=000000c000080000
# The kernel shows which pages are there to the process's own user only.
pages="growth by page"

say() { printf '  %3d s  %s\n' $SECONDS "$*"; }
fail() {
    {
        echo "not so: $*"
        kubectl get pods --all-namespaces -o wide
        kubectl get events --all-namespaces | tail -n 15
        for pod in $(kubectl get pods --all-namespaces -o jsonpath='{range .items[*]}{.metadata.namespace}/{.metadata.name} {end}'); do
            echo "--- observer in $pod"
            kubectl logs --namespace "${pod%/*}" "${pod#*/}" -c observer 2>&1 | tail -n 12
        done
        for address in ${address:-} ${node:-}; do
            echo "--- $address"
            metrics "$address" | grep -E '^observer_(target|leak|degraded|memory_limit)' | head -n 60
        done
    } >&2 || true
    exit 1
}
# within SECONDS WHAT COMMAND...
within() {
    local until=$((SECONDS + $1)) what=$2
    shift 2
    while [ $SECONDS -lt $until ]; do
        "$@" && return
        sleep 1
    done
    fail "$what, in time"
}

metrics() { curl --silent --fail --max-time 5 "http://$1:9713/metrics"; }
# has ADDRESS PATTERN: a line of its metrics. A grep or head that ends early would be curl's failure.
has() { metrics "$1" | grep -E "$2" >/dev/null; }
# of NAMESPACE POD PATH: a field of a pod
of() { kubectl get pod --namespace "$1" "$2" -o jsonpath="{$3}"; }
# is NAMESPACE POD PATH VALUE
is() { [ "$(of "$1" "$2" "$3")" = "$4" ]; }
# pod NAMESPACE LABEL: the first that has the label and is not about to go
pod() {
    kubectl get pods --namespace "$1" --selector "$2" -o \
        jsonpath='{range .items[*]}{.metadata.name} {.metadata.deletionTimestamp}{"\n"}{end}' | awk 'NF == 1 && !seen++ { print $1 }'
}
# status NAMESPACE POD CONTAINER PATH: a field of a container's status
status() { of "$1" "$2" ".status.containerStatuses[?(@.name=='$3')]$4"; }
# process NAMESPACE POD CONTAINER: its process, as the node has it
process() {
    local id
    id=$(status "$1" "$2" "$3" .containerID)
    grep -l "${id##*/}" /proc/[0-9]*/cgroup 2>/dev/null | sed -n 1p | cut -d / -f 3
}
# line PID FIELD: of /proc/PID/status
line() { awk -v field="$2:" '$1 == field { print $2 }' "/proc/$1/status"; }
# least NAMESPACE POD CONTAINER USER: it has the three capabilities and no others, and may not get more
least() {
    local pid
    pid=$(process "$1" "$2" "$3")
    [ -n "$pid" ] || fail "$3 of $2 has a process"
    for set in CapEff CapPrm CapBnd; do
        [ "$(line "$pid" $set)" = $three ] || fail "$3 of $2 has the three capabilities: $set $(line "$pid" $set)"
    done
    [ "$(line "$pid" CapAmb)" = 0000000000000000 ] || fail "$3 of $2 has no ambient capabilities"
    [ "$(line "$pid" NoNewPrivs)" = 1 ] || fail "$3 of $2 cannot get more"
    [ "$(line "$pid" Seccomp)" = 2 ] || fail "a seccomp filter is in force for $3 of $2"
    [ "$(line "$pid" Uid)" = "$4" ] || fail "$3 of $2 runs as $4: $(line "$pid" Uid)"
    say "$2: uid $4, CapEff $three, no ambient ones, no new privileges, seccomp filter in force"
}
# memory NAMESPACE POD CONTAINER: how much of its limit is in use
memory() {
    local pid group used limit
    pid=$(process "$1" "$2" "$3")
    group=/sys/fs/cgroup/memory$(grep ':memory:' "/proc/$pid/cgroup" | cut -d : -f 3-)
    if [ -e "$group/memory.usage_in_bytes" ]; then
        used=$(cat "$group/memory.usage_in_bytes") limit=$(cat "$group/memory.limit_in_bytes")
    else
        group=/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$pid/cgroup")
        used=$(cat "$group/memory.current") limit=$(cat "$group/memory.max")
    fi
    [ "$used" -lt $((limit / 2)) ] || fail "$2 keeps to half of its memory limit: $used of $limit"
    say "$2: $(($(line "$pid" VmRSS) / 1024)) MiB resident ($(($(line "$pid" VmHWM) / 1024)) at the most);" \
        "$((used >> 20)) MiB of the $((limit >> 20)) MiB that it may have, eBPF included"
}
# quiet NAMESPACE POD CONTAINER [FEATURE]: it was never started anew and complains of nothing, but that nobody asks for
# a password, which is the NetworkPolicy's to settle; all works but for FEATURE, though not as often as it would (with
# many processes on a busy machine)
quiet() {
    local said
    said=$(kubectl logs --namespace "$1" "$2" -c "$3")
    [ -n "$said" ] || fail "$3 of $2 logs"
    ! grep -E 'WARN|ERROR|panicked' <<<"$said" | grep -v 'WARN everybody who reaches' || fail "$3 of $2 logs no complaint"
    [ "$(status "$1" "$2" "$3" .restartCount)" = 0 ] || fail "$3 of $2 runs from the beginning"
    said=$(metrics "$(of "$1" "$2" .status.podIP)" | sed -n 's/^observer_degraded{feature="\(.*\)"} [1-9].*/\1/p' | grep -v -x interval || true)
    kubectl exec --namespace "$1" "$2" -c "$3" -- observer doctor >/dev/null || fail "the doctor of $3 of $2 finds all good"
    [ "$said" = "${4:-}" ] ||
        fail "all but \`${4:-}\` works for $3 of $2: \`$said\`"
}
# rolled WHAT: the DaemonSet is the one that was applied last; its observer is the one on our node
rolled() {
    kubectl --namespace observer rollout status daemonset/observer --timeout 90s >/dev/null || fail "$1 is ready"
    observer=$(pod observer app.kubernetes.io/component=node)
    node=$(of observer "$observer" .status.podIP)
}
# render DIRECTORY: a kustomization
render() { "$KUSTOMIZE" kustomize "$1"; }

for image in "$images"/*.tar; do "${ctr[@]}" images import "$image" >/dev/null; done
say "kubelet $(kubectl get node node -o jsonpath='{.status.nodeInfo.kubeletVersion}, {.status.nodeInfo.containerRuntimeVersion}, Linux {.status.nodeInfo.kernelVersion}')"
for scene in pods sidecar daemonset debug pages labels nonroot; do
    . "$top/xtask/src/kubelet/look/$scene.sh"
done
