# Runs a shell command in DIRECTORY with an apt for arm64, which has lists of its own there: dpkg does not come to know
# another architecture. Called as: arm64.sh DIRECTORY COMMAND
set -e
mkdir -p "$1/apt/lists/partial" "$1/apt/archives/partial"
cd "$1"
: >apt/status
cat >apt/conf <<END
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
APT::Sandbox::User "root";
Acquire::Languages "none";
Dir::State "$PWD/apt";
Dir::State::status "$PWD/apt/status";
Dir::Cache "$PWD/apt";
END
export APT_CONFIG="$PWD/apt/conf"
eval "$2"
