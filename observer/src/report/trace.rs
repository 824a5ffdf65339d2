//! Segments to OAP: one short stream per batch. A segment stands for itself, so a stream may carry many instances.

use crate::report::encode;
use crate::report::grpc::Failure;
use crate::report::grpc::Link;
use crate::trace::Segment;

/// What a segment takes as a rule, in bytes.
const USUAL_SIZE: usize = 768;

/// Sends all of `batch` and closes the stream.
pub(super) async fn send(link: &Link, batch: &[Segment]) -> Result<(), Failure> {
    let encoded = |segment: &Segment| {
        let mut bytes = Vec::with_capacity(USUAL_SIZE);
        encode::segment(segment, &mut bytes);
        bytes
    };
    let messages: Vec<_> = batch.iter().map(encoded).collect();
    link.call(proto::encoded::collect(link.channel(), link.request(tokio_stream::iter(messages)))).await
}
