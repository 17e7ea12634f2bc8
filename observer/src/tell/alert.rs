//! Alerts of observer's own, for those without Prometheus.
