//! Mangled names to readable ones, and no others: `h` is a C function, not the C++ type `unsigned char`.

use std::fmt::{self, Write};

use super::super::MAX_NAME_BYTES;

/// The name as its author wrote it; what is not mangled, or mangled beyond bounds, stays.
pub(crate) fn demangle(name: &str) -> String {
    // A crafted name can expand without end.
    let mut plain = Bounded(String::new());
    let rust = name.starts_with("_R") || name.starts_with("_ZN");
    if rust && let Ok(symbol) = rustc_demangle::try_demangle(name) {
        // `{:#}` leaves the hash out.
        if write!(plain, "{symbol:#}").is_ok() {
            return plain.0;
        }
    } else if name.starts_with("_Z")
        && name.len() <= 4 * MAX_NAME_BYTES
        && let Ok(symbol) = cpp_demangle::Symbol::new(name)
        && symbol.structured_demangle(&mut plain, &options()).is_ok()
    {
        return plain.0;
    }
    name.to_owned()
}

fn options() -> cpp_demangle::DemangleOptions {
    cpp_demangle::DemangleOptions::new().recursion_limit(128).no_return_type()
}

struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > 4 * MAX_NAME_BYTES {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demangles_what_is_mangled_and_nothing_else() {
        for name in ["h", "a", "main", "_start", "_Z", "_R", "_ZN", "", "operator", "_Z99x"] {
            assert_eq!(demangle(name), name);
        }
        assert_eq!(demangle("_ZN4core3fmt5write17h0123456789abcdefE"), "core::fmt::write");
        assert_eq!(demangle("_RNvC6_123foo3bar"), "123foo::bar");
        assert_eq!(demangle("_ZNSt6thread5_Impl6_M_runEv"), "std::thread::_Impl::_M_run()");
        assert_eq!(demangle("_Z6waiteri"), "waiter(int)");
    }

    #[test]
    fn a_name_that_expands_without_end_stays_as_it_is() {
        let mut name = "_Z1fSt".to_owned();
        for level in 0..24 {
            name.push_str(&format!("1pI{}S{}_", "a".repeat(level % 3), level));
        }
        assert!(demangle(&name).len() <= 4 * MAX_NAME_BYTES);
        let deep = format!("_Z1f{}i", "P".repeat(3000));
        assert!(demangle(&deep).len() <= 4 * MAX_NAME_BYTES + 1);
        assert!(demangle(&format!("_Z{}", "N".repeat(100_000))).len() <= 100_002);
    }
}
