# Unpacks Debian's Rust library for arm64 below the directory that is given, by its version: that of Debian's compiler.
# By an apt with lists of its own, so that dpkg does not come to know another architecture.
set -e
version=$(dpkg-query --show --showformat='${Version}' rustc-web)
to=$1/$version
rm -rf "$to"
mkdir -p "$to/apt/lists/partial" "$to/apt/archives/partial"
cd "$to/apt"
: >status
cat >conf <<END
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
APT::Sandbox::User "root";
Acquire::Languages "none";
Dir::State "$PWD";
Dir::State::status "$PWD/status";
Dir::Cache "$PWD";
END
export APT_CONFIG="$PWD/conf"
apt-get update
apt-get download "libstd-rust-web-dev=$version"
dpkg --extract ./*.deb "$to"
rm -r "$to/apt"
