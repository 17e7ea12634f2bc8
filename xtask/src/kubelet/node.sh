#!/bin/bash
# One Kubernetes node with its control plane: node.sh WORK LOGS PROGRAMS SECONDS COMMAND...
#
# Runs under `unshare --net --mount`: its network is a loopback of its own, and what a kubelet writes all over the machine
# goes to file systems in memory. COMMAND runs with KUBECONFIG set once the node is ready, for at most SECONDS; then
# everything ends, and nothing is left. So it does on SIGTERM.
set -euo pipefail
work=$1 logs=$2 programs=$3 seconds=$4
shift 4
# Not the kubectl of 1.20.
KUSTOMIZE=$(command -v "$KUSTOMIZE")
# kubectl keeps a cache in HOME.
export KUSTOMIZE PATH=$programs:$PATH HOME=$work
# Everything in here is in our network, and nothing else is.
here=$(readlink /proc/self/ns/net)
started=()
made=()
# The kubelet changes these for the whole machine.
kernel=(vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys kernel.keys.root_maxbytes)
before=$(for name in "${kernel[@]}"; do echo "$name=$(sysctl -n "$name")"; done)

groups() { find /sys/fs/cgroup -maxdepth 2 -type d -name kubepods 2>/dev/null; }
[ -z "$(groups)" ] || { echo "there are cgroups called kubepods already: a kubelet runs here, or one has left them" >&2; exit 1; }

# Those of the node and of its pods, but not this script.
processes() {
    local process
    for process in /proc/[0-9]*; do
        if [ "${process#/proc/}" != $$ ] && [ "$(readlink "$process/ns/net" 2>/dev/null)" = "$here" ]; then
            echo "${process#/proc/}"
        fi
    done
    groups | while read -r group; do find "$group" -name cgroup.procs -exec cat {} + 2>/dev/null || true; done | sort -u
}
# Ends what still runs: end SIGNAL
end() {
    local pid
    for pid in $(processes); do kill "-$1" "$pid" 2>/dev/null || true; done
}
# stop PID: by SIGTERM, and by SIGKILL where that does not help.
stop() {
    kill "$1" 2>/dev/null || return 0
    for ((i = 0; i < 50; i++)); do
        kill -0 "$1" 2>/dev/null || return 0
        sleep 0.1
    done
    kill -9 "$1" 2>/dev/null || true
}
clean() {
    trap '' TERM INT HUP
    # The kubelet first, or it would start again what ends; whoever writes before what it writes to.
    for ((s = ${#started[@]} - 1; s >= 0; s--)); do
        stop "${started[s]}"
    done
    # By design, the shims of containers outlive containerd.
    for signal in TERM KILL KILL KILL; do
        end "$signal"
        sleep 0.3
    done
    for setting in $before; do sysctl -q -w "$setting" || true; done
    groups | while read -r group; do find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null || true; done
    for ((m = ${#made[@]} - 1; m >= 0; m--)); do
        umount -l "${made[m]}" 2>/dev/null || true
        rmdir "${made[m]}" 2>/dev/null || true
    done
    left=$(groups)
    [ -z "$left" ] || echo "left: $left" >&2
}
trap clean EXIT
trap 'exit 143' TERM INT HUP

start() {
    local name=$1
    shift
    "$@" >"$logs/$name.log" 2>&1 &
    started+=($!)
}

# until_true SECONDS WHAT COMMAND...
until_true() {
    local seconds=$1 what=$2
    shift 2
    for ((i = 0; i < seconds; i++)); do
        timeout 10 "$@" >/dev/null 2>&1 && return
        sleep 1
    done
    echo "not within $seconds s: $what. The logs are in $logs" >&2
    tail -n 5 "$logs"/*.log >&2 || true
    exit 1
}

mount --make-rprivate /
ip link set lo up
# A kubelet takes no loopback address for a node's.
ip address add 10.99.0.1/32 dev lo
# The API server's service, without a proxy before it.
ip address add 10.97.0.1/32 dev lo
for place in /etc/cni /run/cni /run/containerd /run/netns /var/lib/cni /var/lib/kubelet /var/log/containers /var/log/pods; do
    # Directories that were not there are removed again.
    [ -d "$place" ] || made+=("$place")
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
[plugins."io.containerd.internal.v1.opt"]
path = "$work/opt"
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
# By what the kubelet knows the API server.
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /O=system:masters/CN=apiserver \
    -keyout "$work/client.key" -out "$work/client.crt" 2>/dev/null
token=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
(umask 077 && echo "$token,admin,1,system:masters" >"$work/tokens")
# kubectl debug: ephemeral containers are behind a gate in 1.20. Whoever asks may do what roles say, as in any cluster.
gates=EphemeralContainers=true
start apiserver kube-apiserver --etcd-servers=http://127.0.0.1:2379 --cert-dir="$work/certificates" \
    --bind-address=0.0.0.0 --secure-port=443 --advertise-address=10.99.0.1 --service-cluster-ip-range=10.97.0.0/24 \
    --kubelet-preferred-address-types=InternalIP --kubelet-client-certificate="$work/client.crt" \
    --kubelet-client-key="$work/client.key" --token-auth-file="$work/tokens" --authorization-mode=RBAC \
    --disable-admission-plugins=ServiceAccount --feature-gates=$gates \
    --service-account-issuer=https://kubernetes.default.svc --service-account-key-file="$work/accounts.key" \
    --service-account-signing-key-file="$work/accounts.key"
cat >"$work/kubeconfig" <<END
{"apiVersion": "v1", "kind": "Config", "current-context": "node",
 "clusters": [{"name": "node", "cluster": {"server": "https://127.0.0.1", "insecure-skip-tls-verify": true}}],
 "users": [{"name": "admin", "user": {"token": "$token"}}],
 "contexts": [{"name": "node", "context": {"cluster": "node", "user": "admin"}}]}
END
export KUBECONFIG=$work/kubeconfig
until_true 90 "the API server is ready" kubectl get --raw /readyz
# The second certificate of the API server's file is that of who signed it.
start controller-manager kube-controller-manager --kubeconfig="$KUBECONFIG" --leader-elect=false \
    --cert-dir="$work/certificates" --root-ca-file="$work/certificates/apiserver.crt"
start scheduler kube-scheduler --kubeconfig="$KUBECONFIG" --leader-elect=false --cert-dir="$work/certificates"
cat >"$work/kubelet.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: 0.0.0.0
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $work/client.crt}}
authorization: {mode: Webhook}
cgroupDriver: cgroupfs
failSwapOn: false
enforceNodeAllocatable: []
featureGates: {EphemeralContainers: true}
resolvConf: ""
volumePluginDir: $work/volumes
evictionHard: {imagefs.available: "1%", nodefs.available: "1%", memory.available: 100Mi}
END
start kubelet kubelet --kubeconfig="$KUBECONFIG" --config="$work/kubelet.yaml" --cert-dir="$work/certificates" \
    --container-runtime=remote --container-runtime-endpoint=unix:///run/containerd/containerd.sock \
    --node-ip=10.99.0.1 --hostname-override=node
until_true 90 "the node is ready" sh -c "kubectl get nodes | grep -q ' Ready '"
# In the background, so that a signal does not wait for its end.
timeout --kill-after=10 "$seconds" "$@" &
wait $!
