#!/bin/bash
# The programs of a Kubernetes node and its control plane, from Debian's source package: build.sh INTO
#
# Debian ships the client only, but the source of all. Takes five to nine minutes on two cores and 2 GB of disk, once.
set -euo pipefail
into=$1
programs=(kubelet kube-apiserver kube-controller-manager kube-scheduler kubectl)
mkdir -p "$into"
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT

# The same archive that packages come from, for sources, without touching the machine's own lists.
mkdir -p "$work/lists/partial" "$work/parts"
archive=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Codename: bookworm' | sort -u | head -n 1)
[ -n "$archive" ] || { echo "apt knows no archive of Debian 12" >&2; exit 1; }
printf 'Types: deb-src\nURIs: %s\nSuites: bookworm bookworm-updates\nComponents: main\nSigned-By: %s\n' \
    "$archive" /usr/share/keyrings/debian-archive-keyring.gpg >"$work/parts/sources.sources"
apt=(apt-get -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$work/parts" -o Dir::State::lists="$work/lists")
"${apt[@]}" update
cd "$work"
"${apt[@]}" source --download-only kubernetes
dpkg-source --no-check -x kubernetes_*.dsc tree
version=v$(sed -n 's/^Version: .*really\([0-9.]*\)-.*/\1/p' kubernetes_*.dsc | head -n 1)

export GOPATH=$work/go GOCACHE=$work/cache HOME=$work CGO_ENABLED=0 GO111MODULE=off GOTOOLCHAIN=local GOPROXY=off GOFLAGS=
export PATH=/usr/lib/go-1.19/bin:$PATH
mkdir -p "$GOPATH/src/k8s.io"
ln -s "$work/tree" "$GOPATH/src/k8s.io/kubernetes"
cd "$GOPATH/src/k8s.io/kubernetes"
# Nothing here is in a hurry.
nice -n 10 make generated_files
for program in "${programs[@]}"; do
    # What an interrupted build has left is good.
    [ ! -x "$into/$program" ] || continue
    echo "building $program $version"
    nice -n 10 go build -ldflags "-s -w -X k8s.io/kubernetes/vendor/k8s.io/component-base/version.gitVersion=$version" \
        -o "$into/$program.new" "k8s.io/kubernetes/cmd/$program"
    mv "$into/$program.new" "$into/$program"
done
