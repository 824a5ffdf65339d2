//! Segments to OAP: one short stream per batch. A segment stands for itself, so a stream may carry many instances.

use proto::v3::trace_segment_report_service_client::TraceSegmentReportServiceClient;

use crate::report::convert;
use crate::report::grpc::Failure;
use crate::report::grpc::Link;
use crate::trace::Segment;

/// Sends all of `batch` and closes the stream.
pub(super) async fn send(link: &Link, batch: &[Segment]) -> Result<(), Failure> {
    let messages: Vec<_> = batch.iter().map(convert::segment).collect();
    let mut client = TraceSegmentReportServiceClient::new(link.channel());
    link.call(client.collect(link.request(tokio_stream::iter(messages)))).await
}
