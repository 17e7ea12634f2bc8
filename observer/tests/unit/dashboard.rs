//! The dashboard that we ship speaks of what observer has; a real Prometheus is asked in the tests with root.

use observer::tell::metrics::Metrics;

use crate::support::dashboard::{expressions, strangers};
use crate::support::told::everything;

#[test]
fn a_name_in_the_dashboard_that_observer_does_not_know_is_found_out() {
    let metrics = String::from_utf8(Metrics::new(everything()).text()).unwrap();
    for (from, to) in [
        ("observer_goroutines", "observer_goroutine"),
        ("observer_futex_wait_seconds_bucket", "observer_futex_waits_seconds_bucket"),
        ("by (kind)", "by (kinds)"),
        ("target=~", "name=~"),
        ("{{source}}", "{{cause}}"),
    ] {
        is_found_out(from, to, &metrics);
    }
}

/// With this in the place of that, a name that observer does not know is found.
#[track_caller]
pub fn is_found_out(from: &str, to: &str, metrics: &str) {
    let mut asked = expressions();
    assert_eq!(strangers(&asked, metrics), Vec::<String>::new());
    for asked in &mut asked {
        asked.expression = asked.expression.replace(from, to);
        asked.legend = asked.legend.replace(from, to);
    }
    assert_ne!(strangers(&asked, metrics), Vec::<String>::new(), "{to} is not found out");
}
