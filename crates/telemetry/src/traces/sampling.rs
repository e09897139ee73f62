//! Which traces are taken.

use opentelemetry::trace::{Link, SpanKind, TraceContextExt, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, ShouldSample};

/// Says of a root span whether it is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// Whoever began it chose it.
    Always,
    /// Where a span that it links to is taken; else if it turns out to have failed or to be slow.
    Linked,
}

/// Takes what its parent or its [`Take`] says, requests by ratio, and everything else.
///
/// What is not taken is recorded all the same, and exported if it failed or was slow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ByRatio {
    /// Up to which part of a trace ID a request is taken.
    pub(crate) threshold: u64,
}

/// Returns the number below which a share of all hashes lies; `ratio` is 0 to 1.
pub(crate) fn threshold(ratio: f64) -> u64 {
    // A cast of floats saturates: 1.0 takes all but one hash in 2^64.
    (ratio * u64::MAX as f64) as u64
}

/// Spreads consecutive numbers evenly (the finaliser of SplitMix64).
pub(crate) fn hash(number: u64) -> u64 {
    let mut hash = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

impl ShouldSample for ByRatio {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        _name: &str,
        kind: &SpanKind,
        _attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let above = parent.map(|parent| parent.span().span_context().clone()).filter(|above| above.is_valid());
        let is_taken = match (&above, parent.and_then(|parent| parent.get::<Take>()), kind) {
            (Some(above), ..) => above.is_sampled(),
            (None, Some(Take::Linked), _) => links.iter().any(|link| link.span_context.is_sampled()),
            (None, None, SpanKind::Server) => {
                let [_, _, _, _, _, _, _, _, a, b, c, d, e, f, g, h] = trace_id.to_bytes();
                u64::from_be_bytes([a, b, c, d, e, f, g, h]) < self.threshold
            }
            (None, Some(Take::Always) | None, _) => true,
        };
        SamplingResult {
            decision: if is_taken { SamplingDecision::RecordAndSample } else { SamplingDecision::RecordOnly },
            attributes: Vec::new(),
            trace_state: above.map_or(TraceState::NONE, |above| above.trace_state().clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_of_numbers_in_a_row_is_sampled() {
        for (ratio, expected) in
            [(0.0, 0..=0), (0.001, 900..=1_100), (0.5, 499_000..=501_000), (1.0, 1_000_000..=1_000_000)]
        {
            let threshold = threshold(ratio);
            let sampled = (7_000_000_000..7_001_000_000_u64).filter(|seq| hash(*seq) < threshold).count();
            assert!(expected.contains(&sampled), "{ratio}: {sampled}");
        }
    }

    #[test]
    fn a_batch_is_taken_with_an_entry_that_is() {
        let sampler = ByRatio { threshold: 0 };
        let entry = super::super::parse(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").unwrap();
        let decide = |take: Option<Take>, kind, links: &[Link]| {
            let parent = take.map_or_else(Context::new, |take| Context::new().with_value(take));
            sampler.should_sample(Some(&parent), TraceId::from(7_u128), "x", &kind, &[], links).decision
        };
        let taken = SamplingDecision::RecordAndSample;
        assert_eq!(decide(Some(Take::Linked), SpanKind::Consumer, &[]), SamplingDecision::RecordOnly);
        assert_eq!(decide(Some(Take::Linked), SpanKind::Consumer, &[Link::with_context(entry)]), taken);
        assert_eq!(decide(Some(Take::Always), SpanKind::Server, &[]), taken);
        assert_eq!(decide(None, SpanKind::Server, &[]), SamplingDecision::RecordOnly);
        assert_eq!(decide(None, SpanKind::Internal, &[]), taken);
    }
}
