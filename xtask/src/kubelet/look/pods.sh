# What is on the node: the example as it is shipped, with a load beside its service; in the namespace `shop` a service
# with a memory limit and no observer of its own, one whose limit is soon reached, and the example Deployment, with an
# observer of its service's user; the DaemonSet.

load='    - name: load
      image: localhost/checkout:dev
      args: [load, --target, "127.0.0.1:8080", --for, 1h]
      securityContext: {runAsUser: 10002, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}'
# The load wants to know where the service listens.
example=$top/deploy/kubernetes/examples/pod.yaml
[ "$(grep -c 'args: \[serve, --for, 1h\]' "$example")" = 1 ] || fail "the example is as it was"
{
    sed 's/args: \[serve, --for, 1h\]/args: [serve, --for, 1h, --listen, "127.0.0.1:8080"]/' "$example"
    echo "$load"
} | kubectl apply -f - >/dev/null

service() {
    cat <<END
---
apiVersion: v1
kind: Pod
metadata: {name: $1, namespace: shop}
spec:
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 5
  securityContext: {runAsUser: 10001, runAsNonRoot: true}
  containers:
    - name: service
      image: localhost/checkout:dev
      args: [serve, --for, 1h, --listen, "127.0.0.1:8080"]
      resources: {limits: {memory: $2}}
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
$load
END
}
{
    echo 'apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {pod-security.kubernetes.io/enforce: privileged}}'
    service limited 768Mi
    service tight 40Mi
} | kubectl apply -f - >/dev/null

render "$top/deploy/kubernetes/base" | kubectl apply -f - >/dev/null

# As an application would: its own kustomization takes the sidecar in, and makes it the service's own user.
overlay=$images/overlay
mkdir "$overlay"
kubernetes=$(realpath --relative-to "$overlay" "$top/deploy/kubernetes")
cat >"$overlay/kustomization.yaml" <<END
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: shop
resources: [$kubernetes/examples/deployment]
components: [$kubernetes/components/nonroot]
replicas: [{name: checkout, count: 1}]
patches:
  - target: {kind: Deployment, name: checkout}
    patch: |-
      - {op: replace, path: /spec/template/spec/containers/1/securityContext/runAsUser, value: 10001}
END
render "$overlay" | kubectl apply -f - >/dev/null
