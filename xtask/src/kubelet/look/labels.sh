# overlays/labels: the DaemonSet for the pods with a label, which the API server tells it; and overlays/labels-kubelet,
# where the kubelet does.

render "$top/deploy/kubernetes/overlays/labels" | kubectl apply -f - >/dev/null
rolled overlays/labels

# What its role lets it do is what it asks for, and nothing else.
may() { kubectl auth can-i --quiet "$@" --all-namespaces --as system:serviceaccount:observer:observer 2>/dev/null; }
may list pods || fail "observer may list pods"
for other in "get pods" "watch pods" "delete pods" "create pods/exec" "get secrets" "list secrets" "list nodes" "get nodes/proxy"; do
    # Two words.
    ! may $other || fail "observer may not $other"
done

# names: the pods and namespaces of all targets
names() { metrics "$node" | sed -n 's/^observer_target_info.*pod="\([^"]*\)",namespace="\([^"]*\)".*/\2\/\1/p' | sort -u | tr '\n' ' '; }
# only WHAT: these are all
only() { [ "$(names)" = "$1" ]; }
sleep 5
[ -z "$(names)" ] || fail "no pod has the label, and none is observed: $(names)"
has "$node" '^observer_targets_awaited [1-9]' || fail "it says that it waits for one"
kubectl label pod checkout observe=true >/dev/null
within 60 "a pod that gets the label is observed, and no other" only "default/checkout "
replica=$(pod shop app=checkout)
kubectl label pod --namespace shop "$replica" observe=true >/dev/null
within 60 "another one, too" only "default/checkout shop/$replica "
kubectl label pod --namespace shop "$replica" observe=false --overwrite >/dev/null
within 60 "one that loses it is let go" only "default/checkout "
within 90 "the leak is suspected" has "$node" '^observer_leak_suspected\{target="checkout@[^"]*"\} 1'
quiet observer "$observer" observer "$pages"
least observer "$observer" observer 0
say "overlays/labels: exactly the pods with the label; observer may list pods and nothing else"

# 1.20 knows no `nodes/pods`: its kubelet refuses, which is said, and takes the greater right.
render "$top/deploy/kubernetes/overlays/labels-kubelet" | kubectl apply -f - >/dev/null
rolled overlays/labels-kubelet
trouble() { curl --silent --max-time 5 "http://$node:9713/api/v1/targets" | grep "the node's pods are not known.*403" >/dev/null; }
within 60 "a kubelet that refuses is named" trouble
kubectl patch clusterrole observer --type json --patch \
    '[{"op": "add", "path": "/rules/-", "value": {"apiGroups": [""], "resources": ["nodes/proxy"], "verbs": ["get"]}}]' >/dev/null
within 120 "the kubelet tells which pods have the label" only "default/checkout "
say "overlays/labels-kubelet: refused by a kubelet of 1.20, and said so; with nodes/proxy the same pods"
