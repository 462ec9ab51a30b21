//! Operational counters: quota refusals, authentication failures, the audit log, reloads.

use super::Metrics;
use super::page::{Labels, Page};
use crate::audit::AuditLog;
use crate::reload::Reloader;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use std::fmt;
use std::sync::Arc;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LimitLabels {
    /// Name of the limit, or `none`.
    limit: &'static str,
    /// Code of the error.
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabels {
    /// Code of the error.
    reason: String,
}

/// Counters of refused requests. Clones share them. Labels are error codes, never callers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refusals {
    quota: Family<LimitLabels, Counter>,
    authentication: Family<ReasonLabels, Counter>,
    permission: Family<ReasonLabels, Counter>,
}

impl Refusals {
    pub(super) fn register(&self, metrics: &Metrics) {
        metrics.register("exsa_quota_refusals", "Requests refused by a quota", self.quota.clone());
        metrics.register(
            "exsa_authentication_failures",
            "Requests without a valid key or token",
            self.authentication.clone(),
        );
        metrics.register(
            "exsa_permission_refusals",
            "Requests of a caller without the scope, or without the right to the model",
            self.permission.clone(),
        );
    }

    /// Counts a request refused by a limit.
    pub(crate) fn quota(&self, limit: &'static str, reason: &'static str) {
        self.quota.get_or_create(&LimitLabels { limit, reason }).inc();
    }

    /// Counts a request without a valid key or token.
    pub(crate) fn authentication(&self, reason: impl Into<String>) {
        self.authentication.get_or_create(&ReasonLabels { reason: reason.into() }).inc();
    }

    /// Counts a request that exceeds the rights of its caller.
    pub(crate) fn permission(&self, reason: impl Into<String>) {
        self.permission.get_or_create(&ReasonLabels { reason: reason.into() }).inc();
    }
}

/// The audit log and the reloads at the time of a scrape.
#[derive(Debug)]
pub(super) struct Operations {
    pub(super) audit: Option<AuditLog>,
    pub(super) reloader: Option<Arc<Reloader>>,
}

impl Collector for Operations {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        if let Some(stats) = self.audit.as_ref().map(AuditLog::stats) {
            let none = Labels::new;
            page.counter(
                "exsa_audit_lines",
                "Lines of the audit log that are stable",
                [(none(), stats.lines)],
            )?;
            let help = "Lines dropped by the audit log because its queue was full";
            page.counter("exsa_audit_lines_dropped", help, [(none(), stats.lines_dropped)])?;
            let help = "Writes of the audit log that failed";
            page.counter("exsa_audit_write_failures", help, [(none(), stats.write_failures)])?;
            let help = "Checkpoints not accepted by the second location";
            page.counter("exsa_audit_checkpoints_unsent", help, [(none(), stats.checkpoints_unsent)])?;
            let failed = f64::from(u8::from(stats.failed));
            page.gauge(
                "exsa_audit_failed",
                "1 while the audit log cannot be written, else 0",
                [(none(), failed)],
            )?;
        }
        if let Some(counts) = self.reloader.as_ref().map(|reloader| reloader.counts()) {
            let outcome = |outcome: &'static str, count| (vec![("outcome", outcome)], count);
            let values = [outcome("ok", counts.ok), outcome("refused", counts.refused)];
            page.counter("exsa_config_reloads", "Reloads of the configuration", values)?;
        }
        Ok(())
    }
}
