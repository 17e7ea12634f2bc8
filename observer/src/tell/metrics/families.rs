//! Every metric by name: what it counts, in what unit, and with which labels.

use super::expose::{Family, Kind};

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, help, kind: Kind::Gauge, labels }
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, help, kind: Kind::Counter, labels }
}

const TARGET: &[&str] = &["target"];
const SITE: &[&str] = &["target", "kind", "reason", "site", "stack_id"];

// Who.
pub(super) const TARGET_INFO: Family = gauge(
    "observer_target_info",
    &["target", "pid", "exe", "runtime", "runtime_version", "pod", "namespace", "container"],
    "Always 1: the process that bears the target's name now, or did last.",
);
pub(super) const TARGET_UP: Family = gauge(
    "observer_target_up",
    TARGET,
    "1 while the target's process lives and is observed; 0 stays for a while after it has ended.",
);
pub(super) const TARGET_RESTARTS: Family = counter(
    "observer_target_restarts_total",
    TARGET,
    "How often the target was started anew or executed another program since observer knows it.",
);
pub(super) const LAST_SAMPLE: Family = gauge(
    "observer_last_sample_timestamp_seconds",
    TARGET,
    "When the target was last sampled, in unix seconds: an old one means that it cannot be sampled.",
);
pub(super) const INTERVAL: Family = gauge(
    "observer_sample_interval_seconds",
    TARGET,
    "Seconds between two samples; longer than asked for when the CPU budget demands it.",
);

// Memory.
pub(super) const RESIDENT: Family =
    gauge("observer_resident_memory_bytes", TARGET, "Bytes of the target that are in memory.");
pub(super) const ANONYMOUS: Family =
    gauge("observer_anonymous_memory_bytes", TARGET, "Bytes that no file backs, in memory or swapped out.");
pub(super) const LIMIT: Family = gauge(
    "observer_memory_limit_bytes",
    TARGET,
    "Lowest memory limit of the target's cgroups, in bytes. Stays after the process has ended.",
);
pub(super) const LIMIT_USAGE: Family = gauge(
    "observer_memory_limit_usage_bytes",
    TARGET,
    "Bytes that count against observer_memory_limit_bytes: of the whole cgroup, without file pages that were not used \
     lately (the working set of Kubernetes).",
);
pub(super) const HEAP: Family = gauge(
    "observer_go_heap_in_use_bytes",
    TARGET,
    "Bytes of heap spans in use, as the Go runtime counts them (MemStats.HeapInuse).",
);
pub(super) const STACKS: Family = gauge(
    "observer_go_stack_in_use_bytes",
    TARGET,
    "Bytes of goroutine stacks, as the Go runtime counts them (MemStats.StackInuse).",
);
pub(super) const MAPPED: Family = counter(
    "observer_mapped_bytes_total",
    &["target", "call"],
    "Bytes of address space taken from the kernel since observation of this process began, by call.",
);
pub(super) const UNMAPPED: Family = counter(
    "observer_unmapped_bytes_total",
    &["target", "call"],
    "Bytes of address space given back to the kernel since observation of this process began, by call.",
);
pub(super) const PAGE_FAULTS: Family = counter(
    "observer_page_faults_total",
    TARGET,
    "Page faults of the target since observation of this process began.",
);

// Who waits.
pub(super) const FUTEX_WAITS: Family = counter(
    "observer_futex_waits_total",
    TARGET,
    "Futex waits of the target that ended since observation of this process began. An estimate from a part of them \
     where there are many, or the machine switches between threads often.",
);
pub(super) const FUTEX_WAIT_SECONDS: Family = Family {
    name: "observer_futex_wait_seconds",
    help: "Seconds that futex waits took which ended. Times are kept as powers of two: the sum is an estimate, and the \
           counts are where there are many waits, or the machine switches between threads often.",
    kind: Kind::Histogram,
    labels: TARGET,
};
pub(super) const TASKS: Family =
    gauge("observer_goroutines", TARGET, "Live goroutines of the target, in whatever state.");
pub(super) const THREADS: Family =
    gauge("observer_threads", TARGET, "Threads of the target, in whatever state.");
pub(super) const BLOCKED: Family = gauge(
    "observer_blocked",
    &["target", "kind"],
    "Goroutines or threads that are blocked: neither running nor ready to run.",
);
pub(super) const SITE_BLOCKED: Family = gauge(
    "observer_site_blocked",
    SITE,
    "Goroutines or threads blocked at a line of code. Those that do not fit are summed as site=\"~other\".",
);
pub(super) const SITE_GROWTH: Family = gauge(
    "observer_site_growth_per_second",
    SITE,
    "By how many a second the blocked at this line grow: over the verdict's window where it blames them, else over \
     about the last minute.",
);
pub(super) const SITE_RETAINED: Family = gauge(
    "observer_site_retained_bytes",
    SITE,
    "Heap bytes that nothing but the blocked at this line keeps reachable; absent where it was not measured.",
);

// The verdict.
pub(super) const GROWTH: Family = gauge(
    "observer_memory_growth_bytes_per_second",
    TARGET,
    "Bytes a second by which memory in use grows: heap after collections and stacks in Go, anonymous memory elsewhere.",
);
pub(super) const LEAK: Family = gauge(
    "observer_leak_suspected",
    TARGET,
    "1 while a group of blocked goroutines or threads grows, never drains and holds what grows. Stays after the \
     process has ended.",
);
pub(super) const LEAK_GROWTH: Family = gauge(
    "observer_leak_growth_bytes_per_second",
    &["target", "site", "stack_id"],
    "Bytes a second that a group to blame takes: its growth by what each member holds. Stays after the process has \
     ended.",
);
pub(super) const GROWING: Family = gauge(
    "observer_memory_growing",
    TARGET,
    "1 while memory grows and no group of blocked goroutines or threads accounts for it. Stays after the process has \
     ended.",
);
pub(super) const DEADLOCK: Family = gauge(
    "observer_deadlock",
    TARGET,
    "Circles of threads that wait for each other. Stays after the process has ended.",
);

pub(super) const OF_TARGETS: [Family; 27] = [
    TARGET_INFO,
    TARGET_UP,
    TARGET_RESTARTS,
    LAST_SAMPLE,
    INTERVAL,
    RESIDENT,
    ANONYMOUS,
    LIMIT,
    LIMIT_USAGE,
    HEAP,
    STACKS,
    MAPPED,
    UNMAPPED,
    PAGE_FAULTS,
    FUTEX_WAITS,
    FUTEX_WAIT_SECONDS,
    TASKS,
    THREADS,
    BLOCKED,
    SITE_BLOCKED,
    SITE_GROWTH,
    SITE_RETAINED,
    GROWTH,
    LEAK,
    LEAK_GROWTH,
    GROWING,
    DEADLOCK,
];

// About observer itself.
pub(super) const BUILD: Family =
    gauge("observer_build_info", &["version"], "Always 1: the version of observer.");
pub(super) const TARGETS: Family =
    gauge("observer_targets", &[], "Targets whose process lives and is observed.");
pub(super) const AWAITED: Family =
    gauge("observer_targets_awaited", &[], "Targets that are looked for and not there.");
pub(super) const LOSSES: Family = counter(
    "observer_losses_total",
    &["source"],
    "What should have been seen and was not, of all targets since observer started, by what lost it.",
);
pub(super) const DEGRADED: Family = gauge(
    "observer_degraded",
    &["feature"],
    "Targets for which this does not work here; the log, the page and `observer doctor` say why.",
);
pub(super) const ALERTS: Family =
    gauge("observer_alerts_firing", &["alert"], "Alerts of observer's own that fire, by what they say.");
pub(super) const NOTIFICATIONS: Family = counter(
    "observer_alert_notifications_total",
    &["receiver"],
    "Notifications of observer's own alerts that were delivered.",
);
pub(super) const NOTIFICATIONS_FAILED: Family = counter(
    "observer_alert_notifications_failed_total",
    &["receiver"],
    "Notifications that were given up: refused, or not delivered in time.",
);
pub(super) const NOTIFICATIONS_DROPPED: Family = counter(
    "observer_alert_notifications_dropped_total",
    &["receiver"],
    "Notifications that were dropped because too many were waiting for this receiver.",
);
pub(super) const NOTIFICATION_ATTEMPTS_FAILED: Family = counter(
    "observer_alert_attempts_failed_total",
    &["receiver"],
    "Attempts to deliver a notification that failed; what can be repeated is.",
);
pub(super) const CPU: Family =
    counter("process_cpu_seconds_total", &[], "Seconds of CPU, user and system, that observer has used.");
pub(super) const OPEN_FDS: Family =
    gauge("process_open_fds", &[], "File descriptors that observer has open.");
pub(super) const MAX_FDS: Family =
    gauge("process_max_fds", &[], "File descriptors that observer may have open.");
pub(super) const VIRTUAL: Family =
    gauge("process_virtual_memory_bytes", &[], "Bytes of observer's address space.");
pub(super) const OWN_RESIDENT: Family =
    gauge("process_resident_memory_bytes", &[], "Bytes of observer that are in memory.");
pub(super) const OWN_THREADS: Family = gauge("process_threads", &[], "Threads of observer.");
pub(super) const STARTED: Family =
    gauge("process_start_time_seconds", &[], "When observer was started, in unix seconds.");

pub(super) const OF_MYSELF: [Family; 17] = [
    BUILD,
    TARGETS,
    AWAITED,
    LOSSES,
    DEGRADED,
    ALERTS,
    NOTIFICATIONS,
    NOTIFICATIONS_FAILED,
    NOTIFICATIONS_DROPPED,
    NOTIFICATION_ATTEMPTS_FAILED,
    CPU,
    OPEN_FDS,
    MAX_FDS,
    VIRTUAL,
    OWN_RESIDENT,
    OWN_THREADS,
    STARTED,
];
