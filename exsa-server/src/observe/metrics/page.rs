//! Writes metrics of several models: one description, then one value per model.

use exsa_core::stats::Histogram;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Unit;
use std::fmt;
use std::time::Duration;

/// Labels of a value.
pub(super) type Labels<'a> = Vec<(&'static str, &'a str)>;

/// The encoder of one scrape.
pub(super) struct Page<'a>(pub(super) DescriptorEncoder<'a>);

impl Page<'_> {
    /// A gauge with its values.
    pub(super) fn gauge<'a>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels<'a>, f64)>,
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            encoder.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// A counter with its values; the encoder adds `_total`.
    pub(super) fn counter<'a>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels<'a>, u64)>,
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            encoder.encode_family(&labels)?.encode_counter(&value, None::<&Exemplar<Labels<'a>, f64>>)?;
        }
        Ok(())
    }

    /// A counter of seconds; the encoder adds `_seconds_total`.
    pub(super) fn seconds<'a>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels<'a>, Duration)>,
    ) -> fmt::Result {
        let unit = Some(&Unit::Seconds);
        let mut encoder = self.0.encode_descriptor(name, help, unit, MetricType::Counter)?;
        for (labels, time) in values {
            let none = None::<&Exemplar<Labels<'a>, f64>>;
            encoder.encode_family(&labels)?.encode_counter(&time.as_secs_f64(), none)?;
        }
        Ok(())
    }

    /// A histogram of seconds; the encoder adds `_seconds`.
    pub(super) fn histogram<'a>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels<'a>, Histogram)>,
    ) -> fmt::Result {
        let unit = Some(&Unit::Seconds);
        let mut encoder = self.0.encode_descriptor(name, help, unit, MetricType::Histogram)?;
        for (labels, times) in values {
            let bound = |bound: Duration| match bound {
                Duration::MAX => f64::INFINITY,
                bound => bound.as_secs_f64(),
            };
            let buckets: Vec<_> = times.buckets().map(|(upper, count)| (bound(upper), count)).collect();
            let mut encoder = encoder.encode_family(&labels)?;
            encoder.encode_histogram::<Labels<'a>>(
                times.sum().as_secs_f64(),
                times.count(),
                &buckets,
                None,
            )?;
        }
        Ok(())
    }
}
