//! Who is observed, and where it runs.
//!
//! Plain data, as `sample` says. Every text is the target's own, cut to a bound where it was read.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who is observed. Does not change while one process image lives.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TargetInfo {
    /// Process id (tgid) in observer's own PID namespace.
    pub pid: u32,
    /// Process id in the target's innermost PID namespace, where that differs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub namespace_pid: Option<u32>,
    pub comm: String,
    pub exe: String,
    pub runtime: Runtime,
    /// RFC 3339.
    pub started_at: String,
    /// Absent outside of containers.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub container: Option<Container>,
}

/// Where a process runs, as far as it can be told from here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Container {
    /// What its runtime names it by: 64 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Runtime {
    /// `go`, `java`, `python`, `node`, `ruby`, `dotnet`, `rust`, `c++`; `native` where none of them is known.
    pub name: String,
    /// As the runtime writes it: `go1.27.3`, `17.0.15`; of Rust the compiler's.
    pub version: Option<String>,
    /// No symbol table.
    #[serde(default)]
    pub stripped: bool,
}
