#!/bin/bash
# One Kubernetes node with its control plane: node.sh WORK PROGRAMS COMMAND...
#
# Runs under `unshare --net --mount`: its network is a loopback of its own, and what a kubelet writes all over the machine
# goes to file systems in memory. COMMAND runs with KUBECONFIG set once the node is ready; then everything ends.
set -euo pipefail
work=$1 programs=$2
shift 2
export PATH=$programs:$PATH
started=()
# The kubelet changes these for the whole machine.
kernel=(vm.overcommit_memory kernel.panic kernel.panic_on_oops)
before=$(for name in "${kernel[@]}"; do echo "$name=$(sysctl -n "$name")"; done)

clean() {
    for ((i = ${#started[@]} - 1; i >= 0; i--)); do
        kill "${started[i]}" 2>/dev/null || true
        # Whoever writes stops before what it writes to.
        wait "${started[i]}" 2>/dev/null || true
    done
    # The shims of containers outlive containerd by design; these are in our network and nowhere else.
    here=$(readlink /proc/self/ns/net)
    for process in /proc/[0-9]*; do
        pid=${process#/proc/}
        [ "$pid" != $$ ] && [ "$(readlink "$process/ns/net" 2>/dev/null)" = "$here" ] || continue
        case $(cat "$process/comm" 2>/dev/null) in containerd-shim*) kill "$pid" 2>/dev/null || true ;; esac
    done
    for setting in $before; do sysctl -q -w "$setting" || true; done
    find /sys/fs/cgroup -maxdepth 2 -type d -name kubepods | while read -r group; do
        for process in $(find "$group" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -u); do
            kill -9 "$process" 2>/dev/null || true
        done
        sleep 0.2
        find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null || true
    done
}
trap clean EXIT

start() {
    local name=$1
    shift
    "$@" >"$work/$name.log" 2>&1 &
    started+=($!)
}

# until SECONDS WHAT COMMAND...
until_true() {
    local seconds=$1 what=$2
    shift 2
    for ((i = 0; i < seconds; i++)); do
        "$@" >/dev/null 2>&1 && return
        sleep 1
    done
    echo "not within $seconds s: $what. The logs are in $work" >&2
    tail -n 5 "$work"/*.log >&2 || true
    exit 1
}

mount --make-rprivate /
ip link set lo up
# A kubelet takes no loopback address for a node's.
ip address add 10.99.0.1/32 dev lo
for place in /etc/cni /run/cni /run/containerd /var/lib/cni /var/lib/kubelet /var/log/containers /var/log/pods; do
    mkdir -p "$place"
    mount -t tmpfs node "$place"
done
mount --make-rshared /var/lib/kubelet
mkdir /etc/cni/net.d
cat >/etc/cni/net.d/pods.conflist <<'END'
{"cniVersion": "0.3.1", "name": "pods", "plugins": [{"type": "ptp", "ipam":
  {"type": "host-local", "subnet": "10.98.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}}]}
END
cat >"$work/containerd.toml" <<END
version = 2
root = "$work/containerd"
state = "/run/containerd/state"
[grpc]
address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/pause:dev"
# For a machine whose root lacks CAP_SYS_RESOURCE.
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "/etc/cni/net.d"
END
start containerd containerd --config "$work/containerd.toml"
start etcd etcd --data-dir "$work/etcd" --listen-peer-urls http://127.0.0.1:2380 \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379
openssl genrsa -out "$work/accounts.key" 2048 2>/dev/null
token=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
(umask 077 && echo "$token,admin,1,system:masters" >"$work/tokens")
start apiserver kube-apiserver --etcd-servers=http://127.0.0.1:2379 --cert-dir="$work/certificates" \
    --bind-address=127.0.0.1 --secure-port=6443 --advertise-address=10.99.0.1 --service-cluster-ip-range=10.97.0.0/24 \
    --kubelet-preferred-address-types=InternalIP --token-auth-file="$work/tokens" --authorization-mode=AlwaysAllow --disable-admission-plugins=ServiceAccount \
    --service-account-issuer=https://kubernetes.default.svc --service-account-key-file="$work/accounts.key" \
    --service-account-signing-key-file="$work/accounts.key"
cat >"$work/kubeconfig" <<END
{"apiVersion": "v1", "kind": "Config", "current-context": "node",
 "clusters": [{"name": "node", "cluster": {"server": "https://127.0.0.1:6443", "insecure-skip-tls-verify": true}}],
 "users": [{"name": "admin", "user": {"token": "$token"}}],
 "contexts": [{"name": "node", "context": {"cluster": "node", "user": "admin"}}]}
END
export KUBECONFIG=$work/kubeconfig
until_true 90 "the API server is ready" kubectl get --raw /readyz
for program in kube-controller-manager kube-scheduler; do
    start "$program" "$program" --kubeconfig="$KUBECONFIG" --leader-elect=false --cert-dir="$work/certificates"
done
cat >"$work/kubelet.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: 0.0.0.0
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
failSwapOn: false
enforceNodeAllocatable: []
resolvConf: ""
evictionHard: {imagefs.available: "1%", nodefs.available: "1%", memory.available: 100Mi}
END
start kubelet kubelet --kubeconfig="$KUBECONFIG" --config="$work/kubelet.yaml" --cert-dir="$work/certificates" \
    --container-runtime=remote --container-runtime-endpoint=unix:///run/containerd/containerd.sock \
    --node-ip=10.99.0.1 --hostname-override=node
until_true 90 "the node is ready" sh -c "kubectl get nodes | grep -q ' Ready '"
"$@"
