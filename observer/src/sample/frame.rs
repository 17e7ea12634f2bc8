//! A call on a stack, and a place in the source.
//!
//! Plain data, as `sample` says.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Frame {
    /// Fully qualified (`checkout.(*Quoter).fetch`); empty where it is unknown: then `module` and `address` say what is known.
    pub function: String,
    pub file: Option<String>,
    pub line: Option<u32>,
    /// The file the code lies in: `libfoo.so`.
    pub module: Option<String>,
    /// Of that file, in hexadecimal, where no function is known: with `address` it says which code this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_id: Option<String>,
    /// File-relative address (as `nm` prints) inside `module`, or the plain address without one.
    pub address: u64,
    /// Compiled into the next frame.
    pub inlined: bool,
    /// On the stack no longer: the next frame called it, and it ended by jumping to what the frame before shows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tail_call: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Place {
    pub function: String,
    pub file: Option<String>,
    pub line: Option<u32>,
}
